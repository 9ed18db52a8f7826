//! How many connections a backend has.

/// What a node knows of a backend's load. Value of `loads`, by backend id.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// TCP connections that it has, of services that are [`crate::front::LEAST`].
    pub open: u32,
    /// Zero.
    pub pad: u32,
    /// Nanoseconds of the monotonic clock when this was counted or told.
    pub at: u64,
}

const STEPS: u32 = 16;

impl Load {
    /// A number of connections in one byte: exact below 32, within a sixteenth above, and never falling while the
    /// number rises.
    #[inline(always)]
    pub const fn code(open: u32) -> u8 {
        if open < STEPS {
            return open as u8;
        }
        // `STEPS` has its one bit at place 4.
        let shift = 27 - open.leading_zeros();
        if shift > 14 {
            return u8::MAX;
        }
        ((shift + 1) * STEPS + (open >> shift) - STEPS) as u8
    }

    /// The least number that has this code.
    #[inline(always)]
    pub const fn of_code(code: u8) -> u32 {
        let (high, low) = (code as u32 / STEPS, code as u32 % STEPS);
        if high == 0 {
            low
        } else {
            (STEPS + low) << (high - 1)
        }
    }
}

const _: () = {
    assert!(size_of::<Load>() == 16);
    let mut code = 0;
    while code <= u8::MAX as u32 {
        assert!(Load::code(Load::of_code(code as u8)) == code as u8);
        code += 1;
    }
    assert!(Load::code(31) == 31 && Load::code(33) == Load::code(32));
    assert!(Load::code(u32::MAX) == u8::MAX);
};
