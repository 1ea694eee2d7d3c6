// pcmoe/report/parts.h: the sections that the pages of a run and of a comparison share.
#pragma once

#include <optional>

#include "pcmoe/report/page.h"
#include "pcmoe/report/run_folder.h"

namespace pcmoe::report {

/// Loss and accuracy of all modes over the steps; nothing without a logged step.
std::optional<Section> CurvesSection(const std::vector<Mode>& modes);

/// Mean over the parties of what `mode` evaluated last, each party counting alike; NaN without one.
double LastEvaluation(const std::vector<Mode>& modes, const Mode& mode, double EvalPoint::* what);

/// States and allocator's peak of the largest process: as planned and as measured, by mode; what a
/// central run would need besides, when it is not among them.
std::optional<Section> MemorySection(const std::vector<Mode>& modes);

/// Bytes by kind and receiver, from the ledgers.
std::optional<Section> BytesSection(const std::vector<Mode>& modes);

/// Router load by layer: of the first mode openly, of the others folded.
std::optional<Section> RouterSection(const std::vector<Mode>& modes);

/// The verdicts and figures of FOLDER/audit.json, if there is one.
std::optional<Section> AuditSection(const std::filesystem::path& folder);

/// Command, settings, digests, machine and version. `about` is an about.json; the processes'
/// commands are folded below.
Section ProvenanceSection(const Json& about, const std::vector<Mode>& modes);

/// Everything below a page's summary: the sections above that there are, and the foot.
void AddRest(const std::vector<Mode>& modes, const std::filesystem::path& folder, const Json& about,
             Page& page);

/// Adds a row for each member of `object` that is not null: its name and its value. Nothing if it
/// is no object.
void AddRows(const Json& object, Table& table);

/// A command as a shell takes it.
std::string ShellLine(const std::vector<std::string>& words);

}  // namespace pcmoe::report
