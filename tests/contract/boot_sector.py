"""A guest of 512 bytes that does what it is told by its serial port: p powers off, n panics, d gets deaf.

It obeys the ACPI power button until it is deaf, and answers each letter with the same one.
"""

from __future__ import annotations

_TICK = """
 start:   ba0206 b80001 ef fb      ; mov dx,602h (PM1 enable); mov ax,100h (power button); out dx,ax; sti
 loop:    f4                       ; hlt: until the next timer tick
          ba0006 ed f6c401 75@off  ; mov dx,600h (PM1 status); in ax,dx; test ah,1; jnz off
          bafd03 ec a801 74@loop   ; mov dx,3fdh; in al,dx; test al,1; jz loop
          baf803 ec ee             ; mov dx,3f8h; in al,dx; out dx,al
          3c70 74@off              ; cmp al,'p'; je off
          3c64 74@deaf             ; cmp al,'d'; je deaf
          3c6e 75@loop             ; cmp al,'n'; jne loop
          ba0505 b001 ee eb@loop   ; mov dx,505h (pvpanic); mov al,1; out dx,al; jmp loop
 deaf:    ba0206 31c0 ef eb@loop   ; mov dx,602h; xor ax,ax; out dx,ax; jmp loop
 off:     ba0406 b80020 ef         ; mov dx,604h (PM1 control); mov ax,2000h (S5); out dx,ax
 stop:    f4 eb@stop               ; hlt; jmp stop
"""


def boot_sector() -> bytes:
    """The assembled sector, padded to a disk of 1 MiB."""
    code = bytearray()
    labels: dict[str, int] = {}
    jumps: list[tuple[int, str]] = []
    for line in _TICK.strip().splitlines():
        for word in line.split(";")[0].split():
            if word.endswith(":"):
                labels[word[:-1]] = len(code)
                continue
            digits, _, label = word.partition("@")
            code += bytes.fromhex(digits)
            if label:
                jumps.append((len(code), label))
                code.append(0)
    for place, label in jumps:
        code[place] = (labels[label] - place - 1) % 256
    return (bytes(code).ljust(510, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0")
