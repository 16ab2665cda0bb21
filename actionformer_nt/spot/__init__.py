"""The SPOT variant: a proposal-free detector that classifies every snippet and draws, for every snippet, a mask over
the whole time axis (Nag et al., 2022), rebuilt without the defects of its public code.

`actionformer_nt` registers it under `model_name: SPOT`.
"""
