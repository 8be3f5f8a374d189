"""Bounds of the NEON kernels' inner loops by llvm-mca, from the compiler's own output.

    python bench/neon.py

Needs Debian's gcc-aarch64-linux-gnu and llvm. A vector operation is one of the two vector pipes of a Cortex-A72 or
A76: loads and scalar instructions go elsewhere.
"""

import re
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).resolve().parents[1] / "src" / "isa_neon.c"
_FLAGS = ["-O3", "-std=c11", "-D_POSIX_C_SOURCE=200809L", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"]
_VECTOR = re.compile(r"\s+(cnt|eor|add|dup|mov|ext|orr|uaddlp|uadalp)\s+v")


def inner_loop(assembly: str, function: str) -> list[str]:
    """Instructions of the shortest loop of a function that counts bits."""
    body = assembly[assembly.index(f"\n{function}:") : assembly.index(f".size\t{function}")].split("\n")
    labels = {line[:-1]: number for number, line in enumerate(body) if re.match(r"\.L\d+:", line)}
    loops = []
    for number, line in enumerate(body):
        branch = re.match(r"\s+(?:b|cb|tb)\S*\s.*(\.L\d+)$", line)
        if branch and labels.get(branch[1], number) < number:
            loop = body[labels[branch[1]] + 1 : number + 1]
            if any("\tcnt\t" in instruction for instruction in loop):
                loops.append([re.sub(r"\.L\d+", "0", instruction) for instruction in loop])
    return min(loops, key=len)


def cycles(loop: list[str], cpu: str, iterations: int = 200) -> float:
    """Cycles of one turn, in the steady state."""
    code = "\n".join(instruction for instruction in loop if not re.match(r"\s+(b|cb|tb)\S*\s+\S*0$", instruction))
    command = ["llvm-mca", "-mtriple=aarch64", f"-mcpu={cpu}", f"-iterations={iterations}"]
    report = subprocess.run(command, input=code, capture_output=True, text=True, check=True).stdout
    return int(re.search(r"Total Cycles:\s+(\d+)", report)[1]) / iterations


def main() -> None:
    command = ["aarch64-linux-gnu-gcc", *_FLAGS, "-S", "-o", "-", str(_SOURCE)]
    assembly = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    print(f"{'pixels x vectors':18} {'MAC/vector op':>14} {'cortex-a72':>12} {'cortex-a76':>12}   (MAC/cycle)")
    for tile in ("4x4", "4x2", "4x1"):
        loop = inner_loop(assembly, f"tile_{tile}")
        macs = 128 * sum("\tcnt\t" in instruction for instruction in loop)
        operations = sum(bool(_VECTOR.match(instruction)) for instruction in loop)
        speeds = [f"{macs / cycles(loop, cpu):12.1f}" for cpu in ("cortex-a72", "cortex-a76")]
        print(f"{tile:18} {macs / operations:14.1f} {' '.join(speeds)}")


if __name__ == "__main__":
    main()
