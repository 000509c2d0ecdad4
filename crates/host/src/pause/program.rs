//! The program of a sandbox, assembled by hand: it blocks SIGINT, SIGTERM and SIGCHLD, then for ever
//! reaps whatever has ended and waits for the next of the three. SIGINT and SIGTERM end it with 0.
//!
//! Blocked signals are delivered even to the first process of a pid namespace, which has no handlers
//! (signal(7), rt_sigtimedwait(2)). It uses no stack and no memory of its own.

/// SIGINT (2), SIGTERM (15), SIGCHLD (17), as the kernel's set of signals.
const SIGNALS: u64 = 1 << 1 | 1 << 14 | 1 << 16;
/// Where the program is in memory.
const BASE: u64 = 0x40_0000;
/// Bytes of the ELF header and of the one program header.
const HEADERS: usize = 64 + 56;

/// For x86-64 (System V ABI: number in eax; rdi, rsi, rdx, r10).
pub(super) fn x86_64() -> Vec<u8> {
    #[rustfmt::skip]
    let mut code = vec![
        // rt_sigprocmask(SIG_BLOCK, &set, 0, 8)
        0xb8, 14, 0, 0, 0,                      // mov eax, 14
        0x31, 0xff,                             // xor edi, edi
        0x48, 0x8d, 0x35, 0x4f, 0, 0, 0,        // lea rsi, [rip + set]
        0x31, 0xd2,                             // xor edx, edx
        0x41, 0xba, 8, 0, 0, 0,                 // mov r10d, 8
        0x0f, 0x05,                             // syscall
        // reap: wait4(-1, 0, WNOHANG, 0), as long as it finds somebody
        0xb8, 61, 0, 0, 0,                      // mov eax, 61
        0xbf, 0xff, 0xff, 0xff, 0xff,           // mov edi, -1
        0x31, 0xf6,                             // xor esi, esi
        0xba, 1, 0, 0, 0,                       // mov edx, 1
        0x45, 0x31, 0xd2,                       // xor r10d, r10d
        0x0f, 0x05,                             // syscall
        0x85, 0xc0,                             // test eax, eax
        0x7f, 0xe6,                             // jg reap
        // rt_sigtimedwait(&set, 0, 0, 8)
        0xb8, 128, 0, 0, 0,                     // mov eax, 128
        0x48, 0x8d, 0x3d, 0x1f, 0, 0, 0,        // lea rdi, [rip + set]
        0x31, 0xf6,                             // xor esi, esi
        0x31, 0xd2,                             // xor edx, edx
        0x41, 0xba, 8, 0, 0, 0,                 // mov r10d, 8
        0x0f, 0x05,                             // syscall
        0x83, 0xf8, 2,                          // cmp eax, SIGINT
        0x74, 5,                                // je end
        0x83, 0xf8, 15,                         // cmp eax, SIGTERM
        0x75, 0xc4,                             // jne reap
        // end: exit_group(0)
        0xb8, 231, 0, 0, 0,                     // mov eax, 231
        0x31, 0xff,                             // xor edi, edi
        0x0f, 0x05,                             // syscall
    ];
    code.extend_from_slice(&SIGNALS.to_le_bytes());
    elf(62, &code)
}

/// For AArch64 (number in x8; x0 to x3).
pub(super) fn aarch64() -> Vec<u8> {
    let mov = |register: u32, value: u32| 0xd280_0000 | value << 5 | register;
    let svc = 0xd400_0001;
    #[rustfmt::skip]
    let code = [
        mov(8, 135), mov(0, 0), adr(1, 2, SET), mov(2, 0), mov(3, 8), svc, // rt_sigprocmask(SIG_BLOCK, &set, 0, 8)
        // reap:
        mov(8, 260), 0x9280_0000, mov(1, 0), mov(2, 1), mov(3, 0), svc,    // wait4(mov x0, -1; 0, WNOHANG, 0)
        0xf100_001f,                                                       // cmp x0, 0
        branch(GT, 13, REAP),
        mov(8, 137), adr(0, 15, SET), mov(1, 0), mov(2, 0), mov(3, 8), svc, // rt_sigtimedwait(&set, 0, 0, 8)
        0xf100_081f,                                                       // cmp x0, SIGINT
        branch(EQ, 21, END),
        0xf100_3c1f,                                                       // cmp x0, SIGTERM
        branch(NE, 23, REAP),
        // end:
        mov(8, 94), mov(0, 0), svc,                                        // exit_group(0)
        0xd503_201f,                                                       // nop, so that the set is aligned
    ];
    const REAP: u32 = 6;
    const END: u32 = 24;
    const SET: u32 = 28;
    const EQ: u32 = 0;
    const NE: u32 = 1;
    const GT: u32 = 12;
    let mut bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend_from_slice(&SIGNALS.to_le_bytes());
    elf(183, &bytes)
}

/// `adr register, to`, as the instruction number `at`.
fn adr(register: u32, at: u32, to: u32) -> u32 {
    // A whole number of words: the two lowest bits of the distance, which have a place of their own, are 0.
    0x1000_0000 | (to - at) << 5 | register
}

/// `b.condition to`, as the instruction number `at`.
fn branch(condition: u32, at: u32, to: u32) -> u32 {
    0x5400_0000 | (to.wrapping_sub(at) & 0x7_ffff) << 5 | condition
}

/// An ELF executable (static, 64 bits, little-endian) with one segment that is read and executed.
fn elf(machine: u16, code: &[u8]) -> Vec<u8> {
    let size = (HEADERS + code.len()) as u64;
    let mut file = Vec::with_capacity(HEADERS + code.len());
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend_from_slice(&2u16.to_le_bytes()); // an executable
    file.extend_from_slice(&machine.to_le_bytes());
    file.extend_from_slice(&1u32.to_le_bytes());
    for word in [BASE + HEADERS as u64, 64, 0] {
        file.extend_from_slice(&word.to_le_bytes()); // where it starts; the program header; no sections
    }
    file.extend_from_slice(&0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 0, 0] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    file.extend_from_slice(&1u32.to_le_bytes()); // PT_LOAD
    file.extend_from_slice(&5u32.to_le_bytes()); // read, execute
    for word in [0, BASE, BASE, size, size, 0x1_0000] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file.extend_from_slice(code);
    file
}
