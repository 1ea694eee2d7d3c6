// pcmoe/model/checkpoint_save.cc: coming.
