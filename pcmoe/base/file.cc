// pcmoe/base/file.cc: see file.h.
#include "pcmoe/base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

namespace pcmoe::base {
namespace {

namespace fs = std::filesystem;

absl::Status ErrnoStatus(const fs::path& path, absl::string_view what) {
  const int error = errno;
  return absl::Status(
      absl::ErrnoToStatusCode(error),
      absl::StrCat(path.string(), ": cannot ", what, ": ", std::generic_category().message(error)));
}

// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }

 private:
  int fd_;
};

absl::Status WriteAll(int fd, std::string_view bytes, const fs::path& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(path, "write");
    }
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const fs::path& path, uint64_t max_bytes) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.ok()) return ErrnoStatus(path, "open");
  struct stat info{};
  if (::fstat(file.get(), &info) != 0) return ErrnoStatus(path, "stat");
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": is not a regular file"));
  }
  if (static_cast<uint64_t>(info.st_size) > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": has ", info.st_size,
                                                   " bytes; at most ", max_bytes, " are read"));
  }
  std::string bytes(static_cast<size_t>(info.st_size), '\0');
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = ::read(file.get(), bytes.data() + done, bytes.size() - done);
    if (count < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(path, "read");
    }
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  bytes.resize(done);
  return bytes;
}

absl::Status WriteFileAtomically(const fs::path& path, std::string_view bytes, int mode) {
  const fs::path temporary = absl::StrCat(path.string(), ".tmp.", ::getpid());
  {
    const Descriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
                                 static_cast<mode_t>(mode)));
    if (!file.ok()) return ErrnoStatus(temporary, "create");
    absl::Status status = WriteAll(file.get(), bytes, temporary);
    if (status.ok() && ::fchmod(file.get(), static_cast<mode_t>(mode)) != 0) {
      status = ErrnoStatus(temporary, "set the mode of");
    }
    if (status.ok() && ::fsync(file.get()) != 0) status = ErrnoStatus(temporary, "sync");
    if (!status.ok()) {
      ::unlink(temporary.c_str());
      return status;
    }
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const absl::Status status = ErrnoStatus(path, "rename the new file over");
    ::unlink(temporary.c_str());
    return status;
  }
  return SyncPath(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

absl::Status CreateFolder(const fs::path& path, int mode) {
  std::error_code error;
  const bool existed = fs::exists(path, error);
  fs::create_directories(path, error);
  if (error) {
    return absl::FailedPreconditionError(
        absl::StrCat(path.string(), ": cannot create the folder: ", error.message()));
  }
  if (!existed && ::chmod(path.c_str(), static_cast<mode_t>(mode)) != 0) {
    return ErrnoStatus(path, "set the mode of");
  }
  return absl::OkStatus();
}

absl::Status SyncPath(const fs::path& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.ok()) return ErrnoStatus(path, "open");
  if (::fsync(file.get()) != 0) return ErrnoStatus(path, "sync");
  return absl::OkStatus();
}

absl::Status PublishFolder(const fs::path& temporary, const fs::path& final_path) {
  std::error_code error;
  for (const auto& entry : fs::recursive_directory_iterator(temporary, error)) {
    PCMOE_RETURN_IF_ERROR(SyncPath(entry.path()));
  }
  if (error) {
    return absl::FailedPreconditionError(
        absl::StrCat(temporary.string(), ": cannot list: ", error.message()));
  }
  PCMOE_RETURN_IF_ERROR(SyncPath(temporary));
  if (::rename(temporary.c_str(), final_path.c_str()) != 0) {
    return ErrnoStatus(final_path, "move the finished folder to");
  }
  return SyncPath(final_path.has_parent_path() ? final_path.parent_path() : fs::path("."));
}

absl::StatusOr<MappedFile> MappedFile::Open(const fs::path& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.ok()) return ErrnoStatus(path, "open");
  struct stat info{};
  if (::fstat(file.get(), &info) != 0) return ErrnoStatus(path, "stat");
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": is not a regular file"));
  }
  if (info.st_size == 0) return MappedFile(nullptr, 0);
  void* data =
      ::mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) return ErrnoStatus(path, "map");
  return MappedFile(static_cast<const uint8_t*>(data), static_cast<size_t>(info.st_size));
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), size_);
}

}  // namespace pcmoe::base
