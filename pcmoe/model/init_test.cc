// pcmoe/model/init_test.cc: coming.
