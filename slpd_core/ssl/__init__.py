"""Self-distillation (DINO): what both stages of pretraining share, on patches and on regions."""
