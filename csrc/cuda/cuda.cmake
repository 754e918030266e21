# Adds the CUDA kernels to _C where there is a compiler for them. Sets cuda_version and cuda_archs, empty without CUDA.
set(cuda_version "")
set(cuda_archs "")
string(TOUPPER "${FASTADV_CUDA}" FASTADV_CUDA)
if(NOT FASTADV_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "FASTADV_CUDA must be AUTO, ON or OFF, got '${FASTADV_CUDA}'")
endif()
if(FASTADV_CUDA STREQUAL "OFF")
  message(STATUS "fastadv: CUDA kernels left out (FASTADV_CUDA=OFF)")
  return()
endif()

include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  # Where check_language looks, and no further.
  find_program(unusable_nvcc nvcc PATHS ENV CUDACXX ENV PATH NO_DEFAULT_PATH)
  if(unusable_nvcc)
    set(reason "${unusable_nvcc} does not compile a trivial program with ${CMAKE_CXX_COMPILER} as its host compiler: "
               "name one that it supports in CUDAHOSTCXX, e.g. CUDAHOSTCXX=g++-13, or set FASTADV_CUDA=OFF; what it "
               "printed is in ${CMAKE_BINARY_DIR}/CMakeFiles")
    if(FASTADV_CUDA STREQUAL "ON")
      message(FATAL_ERROR ${reason})
    endif()
    message(WARNING "fastadv: CUDA kernels left out: " ${reason})
    return()
  endif()
  if(FASTADV_CUDA STREQUAL "ON")
    message(FATAL_ERROR "FASTADV_CUDA=ON, but no nvcc was found: install the CUDA toolkit and put nvcc on PATH or name "
                        "it in CUDACXX, or set FASTADV_CUDA=OFF")
  endif()
  message(STATUS "fastadv: CUDA kernels left out (no nvcc on PATH or in CUDACXX)")
  return()
endif()

# Named before enable_language, which would otherwise ask the machine's own GPU or take nvcc's oldest.
if(NOT FASTADV_CUDA_ARCHS)
  execute_process(COMMAND "${CMAKE_CUDA_COMPILER}" --list-gpu-arch OUTPUT_VARIABLE known_archs)
  if(known_archs MATCHES "compute_100")
    set(FASTADV_CUDA_ARCHS "80-real;90-real;100")  # the last one also as PTX, for what comes after it
  else()
    set(FASTADV_CUDA_ARCHS "80-real;90")
  endif()
endif()
set(CMAKE_CUDA_ARCHITECTURES "${FASTADV_CUDA_ARCHS}")
enable_language(CUDA)

# The CUDA runtime is linked statically: the module then loads beside a torch without CUDA, or with another CUDA.
find_package(CUDAToolkit REQUIRED)
file(GLOB cuda_sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/csrc/cuda/*.cu")
target_sources(_C PRIVATE ${cuda_sources})
target_compile_definitions(_C PRIVATE FASTADV_WITH_CUDA)
set_target_properties(_C PROPERTIES CUDA_ARCHITECTURES "${FASTADV_CUDA_ARCHS}" CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON)
target_compile_options(fastadv_flags INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false --extra-device-vectorization>)
target_link_libraries(_C PRIVATE CUDA::cudart_static)
set(cuda_version "${CMAKE_CUDA_COMPILER_VERSION}")
set(cuda_archs "${FASTADV_CUDA_ARCHS}")
