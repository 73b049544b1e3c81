"""Stage check_params: refuse a params.yaml with anything wrong in it before any other stage starts."""

from pipeline.core.files import write_text
from pipeline.params.root import check_params_file
from pipeline.stages import paths
from pipeline.stages.run import run_stage


def main() -> None:
    check_params_file()
    # always the same, so that valid params rerun nothing but the stages that read what has changed in them
    write_text(paths.PARAMS_ARE_VALID, "params.yaml holds only allowed values\n")


if __name__ == "__main__":
    run_stage(main, __doc__)
