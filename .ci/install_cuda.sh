# nvcc and the static runtime, in an image of manylinux_2_28 (AlmaLinux 8), from NVIDIA's packages.
set -eu
dnf config-manager --add-repo https://developer.download.nvidia.com/compute/cuda/repos/rhel8/x86_64/cuda-rhel8.repo
dnf install -y cuda-nvcc-13-0 cuda-cudart-devel-13-0
