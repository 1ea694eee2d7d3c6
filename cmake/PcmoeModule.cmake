# cmake/PcmoeModule.cmake: one call per folder: a library, its test program, its benchmarks.
#
# pcmoe_module(NAME name HEADERS .. SOURCES .. PUBLIC .. PRIVATE .. TESTS .. TEST_LINKS .. BENCHES ..)
# makes the library pcmoe::<name> from the folder, a test program <name>_test from TESTS (linked with
# TEST_LINKS besides), and a program <name>_bench from BENCHES. A '/' in a name becomes '_' in targets.

add_library(pcmoe_flags INTERFACE)
target_compile_options(pcmoe_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
  -Wno-sign-conversion -Wno-missing-field-initializers -Wold-style-cast -Wnon-virtual-dtor -Woverloaded-virtual)
option(PCMOE_WERROR "Warnings are errors" OFF)
if(PCMOE_WERROR)
  target_compile_options(pcmoe_flags INTERFACE -Werror)
endif()
set(PCMOE_SANITIZE "" CACHE STRING "Sanitizers to build with: address,undefined or thread")
if(PCMOE_SANITIZE)
  add_compile_options(-fsanitize=${PCMOE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize=vptr)
  add_link_options(-fsanitize=${PCMOE_SANITIZE})
endif()

function(pcmoe_module)
  cmake_parse_arguments(M "" "NAME" "HEADERS;SOURCES;PUBLIC;PRIVATE;TESTS;TEST_LINKS;BENCHES" ${ARGN})
  string(REPLACE "/" "_" target ${M_NAME})
  if(M_SOURCES)
    add_library(pcmoe_${target} STATIC ${M_SOURCES})
    target_include_directories(pcmoe_${target} PUBLIC ${PROJECT_SOURCE_DIR})
    target_link_libraries(pcmoe_${target} PUBLIC ${M_PUBLIC} PRIVATE pcmoe_flags ${M_PRIVATE})
  else()
    add_library(pcmoe_${target} INTERFACE)
    target_include_directories(pcmoe_${target} INTERFACE ${PROJECT_SOURCE_DIR})
    target_link_libraries(pcmoe_${target} INTERFACE ${M_PUBLIC})
  endif()
  add_library(pcmoe::${target} ALIAS pcmoe_${target})
  if(M_TESTS)
    add_executable(${target}_test ${M_TESTS})
    target_link_libraries(${target}_test PRIVATE pcmoe_${target} pcmoe_flags ${M_TEST_LINKS}
      GTest::gmock GTest::gtest_main)
    target_compile_definitions(${target}_test PRIVATE PCMOE_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
      PCMOE_PYTHON="${PCMOE_PYTHON}")
    add_test(NAME ${target} COMMAND ${target}_test)
    set_tests_properties(${target} PROPERTIES LABELS unit TIMEOUT 600
      ENVIRONMENT "OMP_NUM_THREADS=1")
  endif()
  if(M_BENCHES)
    add_executable(${target}_bench ${M_BENCHES})
    target_link_libraries(${target}_bench PRIVATE pcmoe_${target} pcmoe_flags
      benchmark::benchmark_main)
  endif()
endfunction()
