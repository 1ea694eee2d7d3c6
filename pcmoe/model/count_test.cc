// pcmoe/model/count_test.cc: coming.
