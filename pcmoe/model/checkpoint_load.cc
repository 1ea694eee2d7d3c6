// pcmoe/model/checkpoint_load.cc: coming.
