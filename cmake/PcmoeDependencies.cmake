# cmake/PcmoeDependencies.cmake: finds what we build on; Debian's packages and LibTorch from .venv.
find_package(Threads REQUIRED)
find_package(absl REQUIRED)
find_package(GTest REQUIRED)
find_package(benchmark REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(spdlog REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(grpcpp REQUIRED IMPORTED_TARGET grpc++)
pkg_check_modules(sodium REQUIRED IMPORTED_TARGET libsodium)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(tomlplusplus REQUIRED IMPORTED_TARGET tomlplusplus)
pkg_check_modules(pcre2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(icu REQUIRED IMPORTED_TARGET icu-uc)

set(PCMOE_PYTHON ${PROJECT_SOURCE_DIR}/.venv/bin/python CACHE FILEPATH
  "Python whose torch package holds LibTorch, and which runs the oracles of the tests")

# find_package(Torch) fails with the wheel of a CUDA build on a machine without a CUDA toolkit, so the
# libraries are named here; pcmoe calls no CUDA API of its own.
execute_process(
  COMMAND ${PCMOE_PYTHON} -c
    "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0], end='')"
  OUTPUT_VARIABLE PCMOE_TORCH_DIR RESULT_VARIABLE torch_missing)
if(torch_missing)
  message(FATAL_ERROR "No torch in ${PCMOE_PYTHON}: run tools/setup.sh build, or 'make demo'.")
endif()
set(torch_libraries)
foreach(library c10 torch_cpu torch c10_cuda torch_cuda)
  if(EXISTS ${PCMOE_TORCH_DIR}/lib/lib${library}.so)
    list(APPEND torch_libraries ${PCMOE_TORCH_DIR}/lib/lib${library}.so)
  endif()
endforeach()
add_library(pcmoe_torch INTERFACE)
add_library(pcmoe::torch ALIAS pcmoe_torch)
target_include_directories(pcmoe_torch SYSTEM INTERFACE ${PCMOE_TORCH_DIR}/include
  ${PCMOE_TORCH_DIR}/include/torch/csrc/api/include)
# no-as-needed: the CUDA libraries register themselves when loaded, though nothing calls them by name.
target_link_libraries(pcmoe_torch INTERFACE -Wl,--no-as-needed ${torch_libraries}
  -Wl,--as-needed -Wl,--allow-shlib-undefined Threads::Threads)
target_link_options(pcmoe_torch INTERFACE -Wl,-rpath,${PCMOE_TORCH_DIR}/lib)
