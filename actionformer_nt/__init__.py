"""The plug-in: everything that is semi-supervised, the SPOT architecture, and the command line.

Importing it registers what a configuration may hold beyond ActionFormer's sections, and loads nothing else.
"""

from libs.core import register_config_section, register_model_schema

register_config_section("semi_cfg", "actionformer_nt.config:SemiSection")
register_model_schema("SPOT", "actionformer_nt.spot.schema:SpotSection")
