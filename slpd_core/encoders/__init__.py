"""Frozen patch encoders and the region encoder: architectures, pretrained weights, inference."""
