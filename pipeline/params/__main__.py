"""Say what is wrong with params.yaml, in one line and with exit code 2, or that nothing is."""

import argparse

from pipeline.core.cli import exit_on_user_error
from pipeline.params.base import PARAMS_FILE
from pipeline.params.root import check_params_file


def main() -> None:
    argparse.ArgumentParser(prog="python -m pipeline.params", description=__doc__).parse_args()
    exit_on_user_error(check_params_file)
    print(f"{PARAMS_FILE} is valid")


if __name__ == "__main__":
    main()
