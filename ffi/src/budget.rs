//! How much a call may compute.

use crate::failure::{Failure, guard_plain};
use crate::handle::{In, Out, User, sized_struct};
use crate::status::export;
use engine::session::Budget;

/// `locutor_clock_fn`.
type ClockFn = extern "C" fn(user: User) -> u64;

sized_struct! {
    /// `locutor_budget`.
    BudgetParams {
        reserved: u32 = 0,
        units: u64 = 0,
        until: u64 = 0,
        clock: Option<ClockFn> = None,
        clock_user: User = User(core::ptr::null_mut()),
    }
}

/// Runs `call` with the budget that C asks for; NULL is no limit.
pub fn with_budget<R>(
    budget: In<BudgetParams>,
    call: impl FnOnce(Budget<'_>) -> Result<R, Failure>,
) -> Result<R, Failure> {
    if budget.is_null() {
        return call(Budget::Unlimited);
    }
    let budget = budget.read()?;
    if budget.reserved != 0 {
        return Err(Failure::Param("budget.reserved is not 0"));
    }
    match budget.clock {
        Some(clock) => call(Budget::Until { clock: &|| clock(budget.clock_user), at: budget.until }),
        None if budget.units > 0 => call(Budget::Units(budget.units)),
        None => call(Budget::Unlimited),
    }
}

export! {
    fn locutor_budget_init(budget: Out<BudgetParams>, size: usize) -> i32 {
        guard_plain(|| Ok(budget.init(size)?))
    }
}
