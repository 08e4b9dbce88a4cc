#!/usr/bin/env bash
# Makes a virtual environment in which MONAI Label serves this package, separate from the package's own.
#   labelling/make_environment.sh FOLDER [PYTHON]        needs Python 3.11, about 8 GB (torch with CUDA) and a few minutes
set -euo pipefail
if [ $# -lt 1 ]; then
    echo "usage: $0 FOLDER [PYTHON]" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
python=${2:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
    echo "error: $python is $("$python" --version), MONAI Label 0.8.5 was tried with Python 3.11; give its path: $0 $folder python3.11" >&2
    exit 2
fi
"$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --requirement "$here/requirements.txt"
"$folder/bin/python" -m pip install --quiet --no-deps --requirement "$here/requirements-alone.txt"
# Without its dependencies: its pydicom would break MONAI Label, which reads PNG and JPEG here
"$folder/bin/python" -m pip install --quiet --no-deps --editable "$here/.."
"$folder/bin/python" -c 'import monailabel.main, propl_monai; print("MONAI Label", monailabel.__version__, "and propl_monai", propl_monai.__version__, "are ready")'
