// tests/proxy/main.cc: link_proxy: emulated links between the parties of a test or a figure.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "tests/proxy/link_proxy.h"

namespace {

using pcmoe::tests::LinkOptions;
using pcmoe::tests::LinkProxy;

// "7001=127.0.0.1:8001" into `options`; false when it is not of that form.
bool ParseLink(const std::string& text, LinkOptions& options) {
  const size_t equals = text.find('=');
  const size_t colon = text.rfind(':');
  if (equals == std::string::npos || colon == std::string::npos || colon < equals) return false;
  const int listen_port = std::atoi(text.substr(0, equals).c_str());
  const int target_port = std::atoi(text.substr(colon + 1).c_str());
  if (listen_port < 1 || listen_port > 65535 || target_port < 1 || target_port > 65535)
    return false;
  options.listen_port = static_cast<uint16_t>(listen_port);
  options.target_host = text.substr(equals + 1, colon - equals - 1);
  options.target_port = static_cast<uint16_t>(target_port);
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "TCP links with delay and limited rate, for tests. While it runs it takes the lines "
      "cut, restore, hang and resume on stdin; they mean all links."};
  double delay_ms = 0;
  double mbit = 0;
  std::vector<std::string> links;
  app.add_option("--delay-ms", delay_ms, "one way, each direction");
  app.add_option("--mbit", mbit, "rate of each direction of each link in Mbit/s; 0: no limit");
  app.add_option("--link", links, "LISTEN_PORT=HOST:PORT; repeat for more links")->required();
  CLI11_PARSE(app, argc, argv);

  std::vector<std::unique_ptr<LinkProxy>> proxies;
  for (const std::string& link : links) {
    LinkOptions options;
    options.one_way_delay = std::chrono::microseconds(static_cast<int64_t>(1000 * delay_ms));
    options.bits_per_second = 1e6 * mbit;
    if (!ParseLink(link, options)) {
      std::cerr << "link_proxy: '" << link << "' is not LISTEN_PORT=HOST:PORT\n";
      return 4;
    }
    auto proxy = LinkProxy::Start(options);
    if (!proxy.ok()) {
      std::cerr << proxy.status().message() << "\n";
      return 2;
    }
    proxies.push_back(*std::move(proxy));
  }
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    for (const auto& proxy : proxies) {
      if (line == "cut" || line == "restore") proxy->SetCut(line == "cut");
      if (line == "hang" || line == "resume") proxy->SetHang(line == "hang");
    }
  }
  while (true) ::pause();  // until a signal ends it
}
