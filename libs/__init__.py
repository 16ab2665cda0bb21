"""The detector: configuration, data, model and training loops, under ActionFormer's names."""
