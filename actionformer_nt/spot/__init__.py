"""The SPOT variant: a proposal-free detector that classifies every snippet and draws, for every snippet, a mask over
the whole time axis (Nag et al., 2022), rebuilt without the defects of its public code.

`actionformer_nt` registers the schema of `model_name: SPOT`. The architecture itself, which needs torch, is registered
when a `model` section is checked against that schema, or by importing `actionformer_nt.spot.meta_arch`.
"""
