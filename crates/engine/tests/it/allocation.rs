use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use darner_engine::{Dimension, DimensionBuilder, Encoding, JoinSpec, Scratch, StarJoin};

/// The system's allocator, and a count of what each thread asks of it.
struct Counting;

thread_local! {
    static NUM_ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    // A thread that ends asks for memory too.
    let _ = NUM_ALLOCATIONS.try_with(|num| num.set(num.get() + 1));
}

#[expect(unsafe_code, reason = "an allocator that counts")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on; `memory` came from there.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, passed on; `memory` came from there.
        unsafe { System.realloc(memory, layout, size) }
    }
}

fn num_allocations(work: impl FnOnce()) -> usize {
    let before = NUM_ALLOCATIONS.get();
    work();
    NUM_ALLOCATIONS.get() - before
}

const DIMENSION_ROWS: i64 = 20_000;

/// The key columns of some rows, each a kind of key, all of one number.
fn keys(numbers: &[i64]) -> Vec<(&'static str, ArrayRef)> {
    let ints = |step: i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(
            numbers.iter().map(|number| number.wrapping_mul(step)),
        ))
    };
    let texts = numbers
        .iter()
        .map(|number| format!("a key of text {number}"));
    let parts = numbers.iter().map(|number| format!("part {}", number % 7));
    vec![
        ("dense", ints(1)),
        ("sparse", ints(0x2545_F491_4F6C_DD1D)),
        ("text", Arc::new(StringArray::from_iter_values(texts))),
        ("part", Arc::new(StringArray::from_iter_values(parts))),
    ]
}

fn dimension(key: &[String]) -> Arc<Dimension> {
    let numbers: Vec<i64> = (0..DIMENSION_ROWS).collect();
    let mut columns = keys(&numbers);
    let names = numbers.iter().map(|number| format!("the name of {number}"));
    columns.push(("name", Arc::new(StringArray::from_iter_values(names))));
    let weights = numbers.iter().map(|number| f64::from(*number as i32));
    columns.push(("weight", Arc::new(Float64Array::from_iter_values(weights))));
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let mut builder = DimensionBuilder::new("d", rows.schema(), key).unwrap();
    builder.upsert(rows).unwrap();
    Arc::new(builder.finish().unwrap())
}

/// A join may ask for memory for each batch and column, but for no row: eight times the rows, no more allocations.
#[test]
fn joins_allocate_nothing_for_a_row() {
    let facts = |num_rows: i64| {
        let numbers: Vec<i64> = (0..num_rows)
            .map(|row| row * 7_919 % DIMENSION_ROWS)
            .collect();
        RecordBatch::try_from_iter(keys(&numbers)).unwrap()
    };
    let (small, large) = (facts(1_000), facts(8_000));
    for key in ["dense", "sparse", "text", "part, dense", "part, text"] {
        let columns: Vec<String> = key.split(", ").map(str::to_owned).collect();
        let dimension = dimension(&columns);
        for encoding in [Encoding::Plain, Encoding::View, Encoding::Dictionary] {
            let spec = JoinSpec::parse(&format!("d on {key} select name, weight")).unwrap();
            let joins = vec![(spec, Arc::clone(&dimension))];
            let join = StarJoin::new(&small.schema(), None, joins, encoding).unwrap();
            let mut scratch = Scratch::default();
            let mut run = |facts: &RecordBatch| {
                num_allocations(|| {
                    let joined = join.join(facts, &mut scratch).unwrap();
                    assert_eq!(joined.counters[0].num_matched, facts.num_rows() as u64);
                })
            };
            // Buffers grow, and large dimensions are packed once they have been used.
            for _ in 0..20 {
                run(&large);
            }
            let (of_small, of_large) = (run(&small), run(&large));
            println!(
                "{key}, {encoding}: {of_small} allocations, {of_large} for eight times the rows"
            );
            assert!(of_large <= of_small + 8 && of_small < 200);
        }
    }
}
