#!/bin/sh
# Copy torchvision's operators in plain torch: requirements/environment/take-kernels.sh app/runtimes FOLDER
# A script of somebody's own may have a package `app`, so the copies import each other by another name.
set -eu
for name in kernels suppression; do
    sed 's/from app\.runtimes\./from cask_torchvision./' "$1/$name.py" >"$2/$name.py"
done
