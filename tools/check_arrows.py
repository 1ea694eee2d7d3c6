#!/usr/bin/env python3
"""Fails when the code breaks the layers of docs/architecture.md.

Reads every pcmoe_module() call below pcmoe/ and every #include of its files:
an include of another folder must be among the folder's declared dependencies
(or what those make PUBLIC), the declared dependencies must be allowed by ALLOWED
and free of circles, network headers stay in their folders, and no file is
longer than 500 lines.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Folder -> folders it may use at all, besides base (DESIGN, section 5).
ALLOWED = {
    "base": set(),
    "tensor": set(),
    "text": set(),
    "data": {"tensor", "text"},
    "model": {"tensor"},
    "plan": {"model", "tensor", "federation", "exchange/shard", "exchange/weights"},
    "optim": {"tensor"},
    "federation": set(),
    "wire": set(),
    "transport": {"wire"},
    "border": {"tensor", "wire", "federation"},
    "exchange/session": {"wire", "border", "transport"},
    "exchange/shard": {"tensor", "model", "optim", "federation", "wire", "border", "transport",
                       "exchange/session"},
    "exchange/rows": {"tensor", "model", "optim", "federation", "wire", "border", "transport",
                      "exchange/session", "exchange/shard"},
    "exchange/weights": {"tensor", "model", "optim", "federation", "wire", "border", "transport",
                         "exchange/session", "exchange/shard"},
    "eval": {"tensor", "text", "data", "model"},
    "train": {"tensor", "text", "data", "eval", "model", "optim", "federation", "wire", "transport",
              "border", "exchange/session"},
    "provision": {"federation"},
    "report": set(),
    "audit": {"tensor", "text", "data", "eval", "model", "optim", "federation", "wire", "border"},
    "cli": None,  # everything
}
# Headers only the named folders may include.
ONLY = {
    r"grpc(pp)?/": {"transport"},
    r"(sys/socket|netinet/|netdb)": {"transport"},
    r"arpa/inet": {"transport", "provision"},
    r"openssl/": {"provision", "border"},
    r"(ATen|torch|c10)/": {"tensor", "model", "optim", "border", "exchange/shard", "exchange/rows",
                           "exchange/weights",
                           "train", "cli", "plan", "audit", "eval"},
}
MAX_LINES = 500


def declared(folder):
    """(public, private) pcmoe dependencies of a folder's CMakeLists.txt."""
    text = (ROOT / "pcmoe" / folder / "CMakeLists.txt").read_text()
    text = re.sub(r"#.*", "", text)
    call = re.search(r"pcmoe_module\((.*?)\)", text, re.S)
    text = call.group(1) if call else text
    words = text.replace("(", " ").replace(")", " ").split()
    public, private, current = set(), set(), None
    for word in words:
        if word.isupper() and word.isalpha():
            current = {"PUBLIC": public, "PRIVATE": private}.get(word)
        elif re.match(r"[A-Z_]+$", word):
            current = None
        elif word.startswith("pcmoe::") and current is not None:
            name = word[len("pcmoe::"):].replace("exchange_", "exchange/")
            if name != "torch":
                current.add(name)
    return public, private


def main():
    problems = []
    graph = {folder: declared(folder) for folder in ALLOWED
             if (ROOT / "pcmoe" / folder / "CMakeLists.txt").exists()}

    def reach(folder, seen):
        for dependency in graph.get(folder, (set(), set()))[0]:
            if dependency not in seen:
                seen.add(dependency)
                reach(dependency, seen)
        return seen

    def circle(folder, path):
        if folder in path:
            problems.append("circle: " + " -> ".join(path + [folder]))
            return
        for dependency in set().union(*graph.get(folder, (set(), set()))):
            circle(dependency, path + [folder])

    for path in sorted(ROOT.glob("pcmoe/**/CMakeLists.txt")):
        folder = str(path.parent.relative_to(ROOT / "pcmoe"))
        if folder not in (".", *ALLOWED):
            problems.append(f"pcmoe/{folder} is not in tools/check_arrows.py's table")
    for folder, (public, private) in graph.items():
        circle(folder, [])
        usable = public | private | {folder}
        for dependency in public | private:
            usable |= reach(dependency, set())
            if ALLOWED[folder] is not None and dependency not in ALLOWED[folder] | {"base"}:
                problems.append(f"pcmoe/{folder} may not depend on {dependency}")
        for file in sorted((ROOT / "pcmoe" / folder).glob("*")):
            if file.suffix not in (".h", ".cc", ".inc"):
                continue
            lines = file.read_text().splitlines()
            name = file.relative_to(ROOT)
            if len(lines) > MAX_LINES:
                problems.append(f"{name}: {len(lines)} lines; at most {MAX_LINES}")
            is_test = re.search(r"_(test|bench)\b|test_|_tests?\.", file.name) is not None
            for number, line in enumerate(lines, 1):
                include = re.match(r'\s*#include [<"]([^>"]+)[>"]', line)
                if not include or is_test:
                    continue
                target = include.group(1)
                if target.startswith("pcmoe/"):
                    wanted = str(pathlib.PurePath(target).parent.relative_to("pcmoe"))
                    if wanted not in usable:
                        problems.append(f"{name}:{number}: includes {wanted} without depending on it")
                for pattern, folders in ONLY.items():
                    if re.match(pattern, target) and folder not in folders:
                        problems.append(f"{name}:{number}: {target} belongs to {sorted(folders)}")
    for problem in problems:
        print("check_arrows:", problem)
    print(f"check_arrows: {len(graph)} folders, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
