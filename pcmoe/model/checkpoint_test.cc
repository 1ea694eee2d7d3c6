// pcmoe/model/checkpoint_test.cc: coming.
