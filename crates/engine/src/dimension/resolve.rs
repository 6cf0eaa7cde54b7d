use arrow_array::ArrayRef;

use super::lookup::fields_of;
use crate::Result;
use crate::index::{Index, KeyRange, Layout, NO_MATCH, num_values, row_count};
use crate::key::{KeyForm, KeyPlan, KeyScratch, null_union};

/// One step of a build input, with plain key columns (no dictionaries).
pub(crate) enum Step {
    /// Rows. Their keys have no nulls and the types of the form.
    Insert(Vec<ArrayRef>),
    /// Keys whose rows so far are dead, and the plan that compares them.
    Delete(Vec<ArrayRef>, KeyPlan),
}

/// What [`resolve`] finds.
pub(crate) enum Event {
    /// A row has the key of one before it, dead or alive.
    Superseded {
        before: u32,
        row: u32,
    },
    Deleted {
        row: u32,
    },
}

/// Runs the steps in order over an index of the inserted rows, which are numbered through from 0.
///
/// Returns the index over the last row of every key, whether it was deleted or not: its caller
/// builds another over the live rows alone if there was an event. So no index needs a removal.
pub(crate) fn resolve(
    form: &KeyForm,
    steps: &[Step],
    mut event: impl FnMut(Event),
) -> Result<(Index, Layout)> {
    // Bound to the columns as they come: the builder may hold strings with wider offsets than the
    // key's type has.
    let plan_of = |columns: &[ArrayRef]| form.bind(&fields_of(columns));
    let mut scratch = KeyScratch::default();
    let mut range = KeyRange::default();
    for step in steps {
        if let Step::Insert(columns) = step {
            range.add(&plan_of(columns)?.encode(columns, &mut scratch)?.values);
        }
    }
    let (mut index, layout) = Index::new(form, range);
    let mut num_rows = 0;
    let mut found = Vec::new();
    for step in steps {
        match step {
            Step::Insert(columns) => {
                let values = plan_of(columns)?.encode(columns, &mut scratch)?.values;
                let superseded = |before, row| event(Event::Superseded { before, row });
                index.insert(&values, num_rows, superseded);
                num_rows += row_count(num_values(&values));
            }
            Step::Delete(_, plan) if plan.is_always_null() => {}
            Step::Delete(columns, plan) => {
                let encoded = plan.encode(columns, &mut scratch)?;
                index.settle(|before, row| event(Event::Superseded { before, row }));
                found.clear();
                index.probe(&encoded.values, &mut found);
                for &key in encoded.misses {
                    found[key as usize] = NO_MATCH;
                }
                let nulls = null_union(columns);
                for (key, &row) in found.iter().enumerate() {
                    let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(key));
                    if row != NO_MATCH && !is_null {
                        event(Event::Deleted { row });
                    }
                }
            }
        }
    }
    index.settle(|before, row| event(Event::Superseded { before, row }));
    index.finish();
    Ok((index, layout))
}
