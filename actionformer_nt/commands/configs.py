"""List the configurations that come with this package, or copy them to a folder.

The copies keep their places (`configs/splits/...`), so that commands find what a configuration names when they run in
that folder.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

EXAMPLE = "actionformer-nt configs my_project"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, default=None, metavar="DIR", help="copy to DIR/configs")
    parser.add_argument("--overwrite", action="store_true", help="replace files of DIR/configs that differ")


def run(args: argparse.Namespace) -> None:
    source = shipped()
    names = sorted(path.relative_to(source) for path in source.rglob("*") if path.suffix in (".yaml", ".json"))
    if args.folder is None:
        print("\n".join((Path("configs") / name).as_posix() for name in names))
        return
    target = args.folder / "configs"
    missing = [name for name in names if not (target / name).exists()]
    differ = [n for n in names if n not in missing and (target / n).read_bytes() != (source / n).read_bytes()]
    if differ and not args.overwrite:
        raise ValueError(
            f"{target}: {len(differ)} files differ from those of the package, such as {differ[0].as_posix()}; name "
            "another folder, or add --overwrite to replace them"
        )
    for name in [*missing, *differ]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
    same = len(names) - len(missing) - len(differ)
    print(f"{target}: {len(missing)} files copied, {len(differ)} replaced, {same} were there already")


def shipped() -> Path:
    """The folder of configurations: in the installed package, or beside the package in a source checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"no configurations at {package / 'configs'}: the package was installed without them")
