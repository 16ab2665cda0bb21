"""The commands of `actionformer-nt`, one module each: its docstring is the help, `EXAMPLE` a call of it,
`add_arguments(parser)` says what it takes, and `run(args)` does it and returns an exit status, or None for 0.
`SEVERAL_PROCESSES`: torchrun may start it.

Modules are imported to build the parser, so that heavy imports (torch, pandas, libs) belong into `run`. A new command
is a module here and its name in `COMMANDS`; an underscore becomes a hyphen.
"""

COMMANDS = (
    "train", "eval", "evaluate", "predict", "report", "check_data", "simulate", "splits", "study", "convert", "configs",
)  # fmt: skip
