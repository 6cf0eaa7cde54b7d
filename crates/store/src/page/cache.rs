//! Pages that queries read lately, with those of their columns that were decoded.
//!
//! A page never changes, so what was read of it once is as good the next time. A query mostly wants the same few columns
//! of the same pages as the one before, and to fetch and decode them again takes longer than to join or add them up.
//! Decoded columns share the page's memory, so that what is kept is counted by the pages' bytes.
//!
//! When there are too many, pages go at random. Queries read tables from the front to the back: of a table that is larger
//! than the cache, the page that was used least recently is just the one that comes next.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_buffer::Buffer;
use arrow_schema::SchemaRef;

use super::{PageDecoder, PageMeta};
use crate::error::{Error, Result};

/// A page's table generation, by a number that no other of this process has, and its number there.
pub(crate) type PagePlace = (u64, u64);

/// The pages of one store that were read lately.
pub(crate) struct PageCache {
    num_bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pages: Vec<(PagePlace, Arc<CachedPage>)>,
    /// Where in `pages` each stands.
    at: HashMap<PagePlace, usize>,
    num_bytes: usize,
    /// What the next victim is drawn from.
    random: u64,
}

impl PageCache {
    /// A cache for pages of so many bytes together.
    pub(crate) fn new(num_bytes_max: usize) -> Self {
        Self {
            num_bytes_max,
            state: Mutex::default(),
        }
    }

    /// Those of the pages that are there.
    pub(crate) fn get(
        &self,
        places: impl Iterator<Item = PagePlace>,
    ) -> Vec<Option<Arc<CachedPage>>> {
        let state = self.lock();
        let find = |place| {
            let at = *state.at.get(&place)?;
            Some(Arc::clone(&state.pages[at].1))
        };
        places.map(find).collect()
    }

    /// Keeps a page, and lets others go if there are too many.
    pub(crate) fn put(&self, place: PagePlace, page: &Arc<CachedPage>) {
        let mut state = self.lock();
        // Another thread may have read it too.
        if page.num_bytes() > self.num_bytes_max || state.at.contains_key(&place) {
            return;
        }
        while state.num_bytes + page.num_bytes() > self.num_bytes_max {
            let victim = state.draw();
            state.remove(victim);
        }
        let at = state.pages.len();
        state.at.insert(place, at);
        state.num_bytes += page.num_bytes();
        state.pages.push((place, Arc::clone(page)));
    }

    /// Lets all pages of a table generation go.
    pub(crate) fn forget(&self, generation: u64) {
        let mut state = self.lock();
        for at in (0..state.pages.len()).rev() {
            if state.pages[at].0.0 == generation {
                state.remove(at);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Any of the pages, of which there is one at least: from the sequence of splitmix64, which is the same each time.
    fn draw(&mut self) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from(mixed >> 33).unwrap_or(0) % self.pages.len()
    }

    fn remove(&mut self, at: usize) {
        let (place, page) = self.pages.swap_remove(at);
        self.at.remove(&place);
        self.num_bytes -= page.num_bytes();
        if let Some((moved, _)) = self.pages.get(at) {
            self.at.insert(*moved, at);
        }
    }
}

/// A page whose bytes were found to be those that were written.
pub(crate) struct CachedPage {
    bytes: Buffer,
    /// Those that somebody asked for.
    columns: Vec<OnceLock<ArrayRef>>,
}

impl CachedPage {
    /// Takes the bytes of a page in.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) if length or checksum is not as written.
    pub(crate) fn check(meta: &PageMeta, bytes: Buffer) -> Result<Self> {
        PageDecoder::check(meta, &bytes)?;
        Ok(Self {
            bytes,
            columns: vec![OnceLock::new(); meta.stats.len()],
        })
    }

    /// The rows, with these columns of the table, ascending.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) if content is not as written.
    pub(crate) fn rows(
        &self,
        meta: &PageMeta,
        table: &SchemaRef,
        (projection, schema): (&[usize], &SchemaRef),
    ) -> Result<RecordBatch> {
        // Looked at once: meanwhile another thread may decode what is missing here.
        let known: Vec<Option<ArrayRef>> = projection
            .iter()
            .map(|column| self.columns.get(*column)?.get().cloned())
            .collect();
        let missing = projection.iter().zip(&known);
        let missing = missing.filter(|(_, known)| known.is_none());
        let missing: Vec<usize> = missing.map(|(column, _)| *column).collect();
        let mut decoded = Vec::new();
        if !missing.is_empty() {
            let decoder = PageDecoder::new(Arc::clone(table), Some(missing));
            decoded = decoder
                .decode_checked(meta, &self.bytes)?
                .columns()
                .to_vec();
        }
        let mut decoded = decoded.into_iter();
        let columns = projection.iter().zip(known).map(|(column, known)| {
            if known.is_some() {
                return known;
            }
            let array = decoded.next()?;
            Some(match self.columns.get(*column) {
                Some(place) => Arc::clone(place.get_or_init(|| array)),
                None => array,
            })
        });
        let lost = || Error::data(format!("page lacks a column: page=`{}`", meta.id));
        let columns = columns.collect::<Option<Vec<_>>>().ok_or_else(lost)?;
        let options = RecordBatchOptions::new().with_row_count(Some(meta.num_rows as usize));
        RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
            .map_err(|error| Error::data("page does not fit its table").with_source(error))
    }

    fn num_bytes(&self) -> usize {
        /// What an array takes beside its bytes.
        const COLUMN_BYTES: usize = 256;
        self.bytes.len() + self.columns.len() * COLUMN_BYTES
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{Int64Array, cast::AsArray, types::Int64Type};
    use arrow_schema::{DataType, Field, Schema};

    use super::*;
    use crate::page::{PageEncoder, PageKind};

    fn schema() -> SchemaRef {
        let field = |name| Field::new(name, DataType::Int64, false);
        Arc::new(Schema::new(vec![field("id"), field("n")]))
    }

    fn encoded(id: u64) -> (PageMeta, Buffer) {
        let numbers = |from: u64| -> ArrayRef {
            let from = i64::try_from(from).unwrap();
            Arc::new(Int64Array::from_iter_values(from..from + 100))
        };
        let rows = RecordBatch::try_new(schema(), vec![numbers(id), numbers(id + 1000)]).unwrap();
        let encoder = PageEncoder::new(PageKind::Upsert, schema(), 1 << 20);
        let page = encoder.encode(&rows).unwrap().remove(0);
        (page.meta(id, 1), Buffer::from(page.bytes))
    }

    fn cached(id: u64) -> Arc<CachedPage> {
        let (meta, bytes) = encoded(id);
        Arc::new(CachedPage::check(&meta, bytes).unwrap())
    }

    #[test]
    fn what_is_kept_stays_below_the_bound_and_is_what_was_put() {
        let bytes_max = 10 * cached(0).num_bytes();
        let cache = PageCache::new(bytes_max);
        for id in 0..100 {
            cache.put((id % 3, id), &cached(id));
            assert!(cache.lock().num_bytes <= bytes_max);
            let num_pages = cache.lock().pages.len() as u64;
            assert_eq!(num_pages, (id + 1).min(10));
        }
        let found = cache.get((0..100).map(|id| (id % 3, id)));
        assert_eq!(found.iter().flatten().count(), 10);
        for (id, page) in (0..).zip(found) {
            let Some(page) = page else { continue };
            let (meta, _) = encoded(id);
            let projected = Arc::new(schema().project(&[1]).unwrap());
            let rows = page.rows(&meta, &schema(), (&[1], &projected)).unwrap();
            let first = rows.column(0).as_primitive::<Int64Type>().value(0);
            assert_eq!(u64::try_from(first).unwrap(), id + 1000);
        }
        cache.forget(0);
        assert!(cache.lock().pages.iter().all(|((of, _), _)| *of != 0));
        cache.forget(1);
        cache.forget(2);
        assert_eq!(cache.lock().num_bytes, 0);
        assert!(cache.lock().at.is_empty());
    }

    #[test]
    fn columns_are_decoded_once() {
        let (meta, bytes) = encoded(7);
        let page = CachedPage::check(&meta, bytes).unwrap();
        let all = page.rows(&meta, &schema(), (&[0, 1], &schema())).unwrap();
        let projected = Arc::new(schema().project(&[1]).unwrap());
        let one = page.rows(&meta, &schema(), (&[1], &projected)).unwrap();
        assert!(Arc::ptr_eq(all.column(1), one.column(0)));
    }

    #[test]
    fn damage_is_found_before_anything_is_kept() {
        let (meta, bytes) = encoded(7);
        let mut damaged = bytes.to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        let error = CachedPage::check(&meta, Buffer::from(damaged))
            .err()
            .unwrap();
        assert!(error.to_string().contains("checksum"), "{error}");
    }
}
