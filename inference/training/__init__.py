"""How the two models that ship are made: data by programs, training, scores. Nothing is downloaded."""
