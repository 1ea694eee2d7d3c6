// pcmoe/report/report_test.cc: folders as runs, sims and benchmarks leave them, and their pages.
#include "pcmoe/report/report.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pcmoe/base/file.h"
#include "pcmoe/report/parts.h"
#include "pcmoe/report/run_folder.h"

namespace pcmoe::report {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

class ReportTest : public testing::Test {
 protected:
  ReportTest() : folder_(fs::temp_directory_path() / absl::StrCat("pcmoe-report-", getpid())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~ReportTest() override { fs::remove_all(folder_); }

  void Write(const std::string& file, const std::string& text) const {
    fs::create_directories((folder_ / file).parent_path());
    ASSERT_TRUE(base::WriteFileAtomically(folder_ / file, text).ok());
  }
  // A run of `steps` steps with two layers, the first dense, that says `loss` last.
  void WriteRun(const std::string& at, const std::string& eval_file, int steps, double loss) const {
    std::string metrics = "{\"event\":\"start\",\"detail\":\"\",\"step\":0}\n";
    for (int step = 1; step <= steps; ++step) {
      absl::StrAppend(&metrics, "{\"step\":", step, ",\"loss\":", loss + steps - step,
                      ",\"num_tokens\":10,\"expert_load\":[[],[30,10]]}\n{\"step\":", step,
                      ",\"eval\":\"", eval_file, "\",\"eval_loss\":", loss + 1,
                      ",\"eval_tokens\":5,\"eval_accuracy\":0.75,\"eval_examples\":4}\n");
    }
    Write(at + "/metrics.jsonl", metrics);
    Write(at + "/result.json", R"({"states_bytes": 3000000, "peak_allocated_bytes": 4000000,
                                   "peak_resident_bytes": 5e8, "sent_bytes": 6000000,
                                   "tokens_per_s": 123, "eval": {}})");
    Write(at + "/about.json", R"({"pcmoe": "9.8", "command": ["pcmoe", "train", "--config", "it's"],
      "machine": {"cpu": "A <fast> one", "cores": 3, "memory_bytes": 8e9},
      "planned": {"states_bytes": 3100000, "peak_allocated_bytes": 4100000,
                  "central": {"states_bytes": 9000000, "peak_allocated_bytes": 9500000}},
      "digests": {"model config": "abc123"}, "settings": {"learning_rate": 0.5}})");
    Write(at + "/ledger.jsonl", "{}\n");
  }
  // As the border would read it; a reader of its own, since this folder knows none.
  static absl::StatusOr<LedgerFacts> Ledger(const fs::path&) {
    return LedgerFacts{2, "beef", {{"b", "weights", 2'000'000, 1}, {"c", "vote", 500, 1}}};
  }
  std::string Make() const {
    const auto page = MakeReport(folder_, Ledger);
    EXPECT_TRUE(page.ok()) << page.status();
    return page.value_or("");
  }

  const fs::path folder_;
};

TEST_F(ReportTest, RunHasAllThatItLeft) {
  WriteRun(".", "dev.jsonl", 3, 2.5);
  const std::string page = Make();
  EXPECT_THAT(page, HasSubstr("<th scope=\"row\">steps</th><td>3</td>"));
  EXPECT_THAT(page, HasSubstr("training loss, last logged</th><td>2.5000</td>"));
  EXPECT_THAT(page, HasSubstr("evaluation loss</th><td>3.5000</td>"));
  EXPECT_THAT(page, HasSubstr("accuracy</th><td>75.00 %</td>"));
  EXPECT_THAT(page, HasSubstr("<td>3.1 MB</td><td>3.0 MB</td>"));  // states: planned, measured
  EXPECT_THAT(page, HasSubstr("<th scope=\"row\">central</th><td>9.0 MB</td><td>-</td>"));
  EXPECT_THAT(page, HasSubstr("2.0 MB"));
  EXPECT_THAT(page, HasSubstr("2 records, head beef"));
  EXPECT_THAT(page, HasSubstr("<td class=\"h4\">1.50</td><td class=\"h2\">0.50</td>"));
  EXPECT_THAT(page, HasSubstr("pcmoe train --config &#39;it&#39;\\&#39;&#39;s&#39;"));
  EXPECT_THAT(page, HasSubstr("A &lt;fast&gt; one"));
  EXPECT_THAT(page, HasSubstr("abc123"));
  EXPECT_LT(page.size(), kMaxPageBytes);
}

TEST_F(ReportTest, RunThatGoesOnGivesUpWhatCameAfter) {
  Write("metrics.jsonl",
        "{\"step\":1,\"loss\":5,\"num_tokens\":1,\"expert_load\":[[8,0]]}\n"
        "{\"step\":2,\"loss\":4,\"num_tokens\":1,\"expert_load\":[[8,0]]}\n"
        "{\"step\":2,\"eval\":\"f\",\"eval_loss\":7,\"eval_tokens\":1}\n"
        "{\"event\":\"failure\",\"detail\":\"a is lost\"}\n"
        "{\"event\":\"start\",\"detail\":\"\",\"step\":1}\n"
        "{\"step\":2,\"loss\":3,\"num_tokens\":1,\"expert_load\":[[0,8]]}\n"
        "[\"no object\"]\n{\"step\":3,\"lo");  // and a crash cut the last line
  const auto run = ReadRunFolder(folder_, "x", nullptr);
  ASSERT_TRUE(run.ok()) << run.status();
  ASSERT_EQ(run->train.size(), 2);
  EXPECT_EQ(run->train.at(2).loss, 3);
  EXPECT_TRUE(run->evaluations.empty());
  EXPECT_EQ(run->load, (Load{{8, 8}}));
  EXPECT_EQ(run->failures, 1);
  EXPECT_TRUE(run->result.is_null());
  EXPECT_THAT(Make(), HasSubstr("The run has not ended"));
}

TEST_F(ReportTest, LedgerThatCannotBeBelievedIsSaid) {
  WriteRun(".", "dev.jsonl", 1, 1);
  const auto page = MakeReport(folder_, [](const fs::path&) -> absl::StatusOr<LedgerFacts> {
    return absl::DataLossError("record 3 was changed");
  });
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_THAT(*page, HasSubstr("cannot be believed: record 3 was changed"));
}

TEST_F(ReportTest, SimComparesEachPartyWithItself) {
  Write("made-by-pcmoe-sim", "");
  WriteRun("a/out", "a.dev", 4, 1);
  WriteRun("b/out", "b.dev", 4, 3);
  WriteRun("compared_with/central/out", "a.dev", 4, 2.25);
  Write("result.json", R"({"parties": ["a", "b"], "verdicts": ["pcmoe loses to central."],
    "runs": {"federated": {"mean_eval_loss": 3.25, "states_bytes": 3e6, "sent_bytes": 1.2e7,
                           "eval_loss": {"a": 3, "b": 3.5}, "eval_accuracy": {"a": 0.5, "b": 1}},
             "central": {"mean_eval_loss": 3.125, "sent_bytes": 0, "wall_s": 61},
             "../a": {"mean_eval_loss": 1}}})");
  const std::string page = Make();
  EXPECT_THAT(page, HasSubstr("pcmoe sim: 2 parties"));
  EXPECT_THAT(page, HasSubstr("<p>pcmoe loses to central.</p>"));
  EXPECT_THAT(page, HasSubstr("federated</th><td>3.2500</td><td>75.00 %</td>"));
  EXPECT_THAT(page, HasSubstr("<td>3.5000<small>100.00 %</small></td>"));
  // Curves: the federation's mean over a (2) and b (4) at each step, central's on a's file alone.
  EXPECT_THAT(page, HasSubstr("<th scope=\"row\">4</th><td>3</td><td>3.25</td></tr>"));
  EXPECT_THAT(page, HasSubstr("Who sent what to whom: federated"));
  EXPECT_THAT(page, HasSubstr("a to b"));
  EXPECT_THAT(page, HasSubstr("Router load: central"));
}

TEST_F(ReportTest, AuditsVerdictIsThere) {
  WriteRun(".", "dev.jsonl", 1, 1);
  Write("audit.json", R"({"exchange": "rows", "coalition": ["a"], "victims": ["b"], "verdicts": [
    {"level": "revealed", "what": "the text can be read back", "to_whom": "a", "certainty": "sure",
     "change": "use weights"}], "findings": [{"title": "decoder", "metric": "top-1", "value": 0.95,
     "low": 0.9, "high": 0.97, "baselines": {"unigram": 0.04}}], "warnings": ["few rows"]})");
  const std::string page = Make();
  EXPECT_THAT(page, HasSubstr("<th scope=\"row\" class=\"bad\">revealed</th>"
                              "<td data-label=\"what\">the text can be read back</td>"));
  EXPECT_THAT(page, HasSubstr("<td>0.950</td><td>0.900 to 0.970</td><td>0.040</td>"));
  EXPECT_THAT(page, HasSubstr("Warning: few rows"));
  Write("audit.json", "half");
  EXPECT_THAT(Make(), HasSubstr("audit.json: is not one JSON object"));
}

TEST_F(ReportTest, SevenHasMeansSpreadsAndCurves) {
  Write("seven.json", R"({"title": "Seven", "tasks": ["trec", "mr"],
    "modes": [{"name": "central", "description": "one model"}, {"name": "alone"}, {"name": "rows"}],
    "runs": [
      {"mode": "central", "task": "trec", "seed": 0, "accuracy": {"a": 0.8, "b": 0.9},
       "mean_accuracy": 0.85, "states_bytes": 5e6, "curve": [[10, 0.5], [20, 0.85]], "steps_to_95": 18,
       "loss_curve": [[10, 1.5], [20, 0.75]]},
      {"mode": "central", "task": "trec", "seed": 1, "accuracy": {"a": 0.84, "b": 0.86},
       "mean_accuracy": 0.87, "states_bytes": 5e6, "curve": [[10, 0.6], [20, 0.87]], "steps_to_95": 16},
      {"mode": "central", "task": "mr", "seed": 0, "accuracy": {"a": 0.7}, "mean_accuracy": 0.7,
       "curve": [[10, 0.5], [20, 0.7]], "steps_to_95": 19},
      {"mode": "alone", "task": "trec", "seed": 0, "accuracy": {}, "mean_accuracy": 0.6,
       "curve": [[10, 0.1], [20, 0.6]], "steps_to_95": null}],
    "figures": {"seven": {"value": -0.4, "must": -0.5, "ok": true},
                "level": {"value": -2, "must": 0, "ok": false}},
    "commands": ["bench/run seven --data <DIR>"], "made_with": {"base": "abc<1>", "runs": 4, "none": null},
    "notes": ["dev only"]})");
  const std::string page = Make();
  EXPECT_THAT(page, HasSubstr("<th scope=\"row\">central</th><td>78.00</td>"
                              "<td>86.0 \u00b1 1.4<small>82.0 to 88.0</small></td><td>70.0</td>"
                              "<td>2</td>"));
  // Of one of two tasks alone no mean is formed.
  EXPECT_THAT(page, HasSubstr("<th scope=\"row\">alone</th><td>-</td><td>60.0</td><td>-</td>"));
  // Steps: of both tasks, or how many got there.
  EXPECT_THAT(page, HasSubstr("<td>18</td>"));
  EXPECT_THAT(page, HasSubstr("<td>in 0 of 2 tasks</td>"));
  EXPECT_THAT(page, HasSubstr("<th scope=\"row\">rows</th><td>-</td><td>-</td><td>-</td>"
                              "<td>-</td><td>-</td></tr>"));
  EXPECT_THAT(page, HasSubstr("<td class=\"good\">yes</td>"));
  EXPECT_THAT(page, HasSubstr("<td class=\"bad\">no</td>"));
  EXPECT_THAT(page, HasSubstr("<th scope=\"row\">10</th><td>55 %</td><td>10 %</td>"));
  EXPECT_THAT(page, HasSubstr("trec: loss, nats a token"));
  EXPECT_THAT(page, HasSubstr("<th scope=\"row\">20</th><td>0.75</td><td>-</td>"));
  EXPECT_THAT(page, Not(HasSubstr("mr: loss")));  // no run of it has one
  EXPECT_THAT(page, HasSubstr("--data &lt;DIR&gt;"));
  EXPECT_THAT(page, HasSubstr("<th scope=\"row\">base</th><td>abc&lt;1&gt;</td>"));
  EXPECT_THAT(page, Not(HasSubstr("<th scope=\"row\">none")));
}

TEST_F(ReportTest, WhatCannotBeReadIsNamed) {
  EXPECT_TRUE(absl::IsNotFound(MakeReport(folder_, Ledger).status()));
  Write("seven.json", "[]");
  EXPECT_TRUE(absl::IsInvalidArgument(MakeReport(folder_, Ledger).status()));
  Write("seven.json", R"({"tasks": ["t"], "modes": [{"name": "m"}],
                          "runs": [{"mode": "other", "task": "t", "mean_accuracy": 1}]})");
  const absl::Status status = MakeReport(folder_, Ledger).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("mode \"other\""));
  fs::remove(folder_ / "seven.json");
  Write("made-by-pcmoe-sim", "");
  EXPECT_TRUE(absl::IsNotFound(MakeReport(folder_, Ledger).status()));
  Write("result.json", R"({"parties": ["../etc"], "runs": {}})");
  EXPECT_TRUE(absl::IsInvalidArgument(MakeReport(folder_, Ledger).status()));
}

TEST_F(ReportTest, LargeRunsStayBelowTheBound) {
  std::string metrics, load = "[";
  for (int layer = 0; layer < 48; ++layer) {
    absl::StrAppend(&load, layer > 0 ? ",[" : "[");
    for (int e = 0; e < 128; ++e) absl::StrAppend(&load, e > 0 ? "," : "", (e * layer) % 97);
    load += "]";
  }
  load += "]";
  for (int step = 1; step <= 20000; ++step) {
    absl::StrAppend(&metrics, "{\"step\":", step, ",\"loss\":1.2345678901,\"num_tokens\":10",
                    step > 19990 ? absl::StrCat(",\"expert_load\":", load) : "", "}\n");
  }
  Write("metrics.jsonl", metrics);
  EXPECT_LT(Make().size(), 600'000);
}

TEST(ShellLineTest, QuotesWhatAShellWouldChange) {
  EXPECT_EQ(ShellLine({"pcmoe", "--set", "data.train={party}.jsonl", "a b", "", "it's"}),
            "pcmoe --set 'data.train={party}.jsonl' 'a b' '' 'it'\\''s'");
}

}  // namespace
}  // namespace pcmoe::report
