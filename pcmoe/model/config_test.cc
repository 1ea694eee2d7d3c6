// pcmoe/model/config_test.cc: coming.
