"""SPOT (Nag et al., 2022): a proposal-free detector that predicts, for every snippet, a class and a mask over all
snippets. Reimplemented without the defects of the public code, which the modules name.

`actionformer_nt` registers it under `model_name: SPOT`.
"""
