"""Say what is wrong with params.yaml, in one line and with exit code 2, or nothing: python -m pipeline.params"""

from pipeline.core.cli import exit_on_user_error
from pipeline.params.root import check_params_file

if __name__ == "__main__":
    exit_on_user_error(check_params_file)
