// pcmoe/base/status.h: how functions report failure, and which exit code a failure becomes.
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace pcmoe {

/// Exit codes of every pcmoe command (docs/operations.md).
enum class ExitCode : int {
  kOk = 0,
  kRunFailed = 1,   ///< Data loss, a non-finite value, a disk error, an interrupted run.
  kConnection = 2,  ///< A peer is lost or is not who the manifest says.
  kTimeout = 3,     ///< A wait reached its deadline.
  kBadInput = 4,    ///< Arguments, config, manifest, model or data cannot be used.
  kBug = 5,         ///< pcmoe broke a promise of its own.
};

/// The exit code of `status`. By code: InvalidArgument, NotFound, AlreadyExists,
/// FailedPrecondition, OutOfRange, PermissionDenied -> 4; Unavailable, Unauthenticated -> 2;
/// DeadlineExceeded -> 3; Internal, Unknown, Unimplemented -> 5; the rest -> 1.
ExitCode ExitCodeOf(const absl::Status& status);

/// `status` with `context` and ": " put before its message; code and payloads stay. OK stays OK.
absl::Status WithContext(const absl::Status& status, absl::string_view context);

}  // namespace pcmoe

// NOLINTBEGIN(bugprone-macro-parentheses): the macros declare variables named by their caller.
#define PCMOE_CONCAT_INNER(a, b) a##b
#define PCMOE_CONCAT(a, b) PCMOE_CONCAT_INNER(a, b)
/// Returns from the calling function when `expression` (an absl::Status) is not OK.
#define PCMOE_RETURN_IF_ERROR(expression)                                                  \
  do {                                                                                     \
    if (absl::Status pcmoe_status = (expression); !pcmoe_status.ok()) return pcmoe_status; \
  } while (false)
/// Assigns the value of `expression` (a StatusOr) to `target`, or returns its status.
#define PCMOE_ASSIGN_OR_RETURN(target, expression) \
  PCMOE_ASSIGN_OR_RETURN_INNER(PCMOE_CONCAT(pcmoe_or_, __LINE__), target, expression)
#define PCMOE_ASSIGN_OR_RETURN_INNER(variable, target, expression) \
  auto variable = (expression);                                    \
  if (!variable.ok()) return std::move(variable).status();         \
  target = std::move(variable).value()
// NOLINTEND(bugprone-macro-parentheses)
