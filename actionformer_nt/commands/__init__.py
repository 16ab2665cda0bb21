"""The commands of `actionformer-nt`, one module each.

A module's docstring is the help text and `EXAMPLE` a sample call; `add_arguments(parser)` adds the arguments, and
`run(args)` executes the command and returns the exit status (None: 0). torchrun may start a command whose module sets
`SEVERAL_PROCESSES`. `WHEN_STOPPED` says what a user can do after Ctrl-C.

All modules are imported to build the parser, so heavy imports (torch, pandas, libs) belong into `run`. To add a
command, add a module and its name to `COMMANDS`; an underscore becomes a hyphen.
"""

COMMANDS = (
    "train", "eval", "evaluate", "predict", "report", "check_data", "simulate", "splits", "study", "convert", "extract",
    "configs",
)  # fmt: skip
