//! How the C library's allocator treats large blocks: they are taken from the system one by one, and
//! given back when they are freed.
//!
//! glibc begins like that and stops as soon as a large block was freed: from then on blocks of up to
//! 32 MiB come out of its heaps, where those that grow leave holes that nobody else fits into. A
//! backup of a folder of a million files took 40 % more memory for it (`docs/performance.md`). The
//! engine keeps the large buffers that it needs again and again, so the system is seldom asked.
//!
//! Other C libraries are left as they are.

/// Blocks of this many bytes, or more, are the system's.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BYTES: nix::libc::c_int = 1 << 20;

/// Sets the allocator up; to be called before there is a second thread.
pub(crate) fn set_up() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for parameter in [nix::libc::M_MMAP_THRESHOLD, nix::libc::M_TRIM_THRESHOLD] {
        // SAFETY: it takes two numbers and no pointer, and no other thread allocates meanwhile. One
        // that it does not like it ignores.
        #[expect(unsafe_code, reason = "glibc has no other way to fix this from within")]
        unsafe {
            nix::libc::mallopt(parameter, LARGE_BYTES);
        }
    }
}
