"""Attention: mask, reference and kernels."""
