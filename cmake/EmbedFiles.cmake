# cmake/EmbedFiles.cmake: cmake -DOUT=.. -DHEADER=.. -DNAMESPACE=.. -DFILES="name=path;..." -P EmbedFiles.cmake
# writes a C++ file that defines the bytes of each file as the std::string_view `name` of HEADER.
set(text "// Written by cmake/EmbedFiles.cmake.\n#include \"${HEADER}\"\n\nnamespace ${NAMESPACE} {\n\n")
foreach(entry IN LISTS FILES)
  string(REGEX MATCH "^([A-Za-z0-9_]+)=(.*)$" matched "${entry}")
  set(name ${CMAKE_MATCH_1})
  file(READ "${CMAKE_MATCH_2}" bytes HEX)
  string(LENGTH "${bytes}" digits)
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
  math(EXPR size "${digits} / 2")
  string(APPEND text "static const unsigned char ${name}Bytes[] = {${bytes}0};\n"
    "const std::string_view ${name}(reinterpret_cast<const char*>(${name}Bytes), ${size});\n\n")
endforeach()
string(APPEND text "}  // namespace ${NAMESPACE}\n")
file(WRITE "${OUT}" "${text}")
