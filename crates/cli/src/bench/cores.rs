//! The processor cores of the target and of its load.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::BenchError;

/// The cores that this process may use, in two halves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Halves {
    target: CpuSet,
    load: CpuSet,
}

impl Halves {
    /// Divides the cores that the calling thread may use; of an odd number the load gets one more.
    ///
    /// # Errors
    /// There is only one core.
    pub(crate) fn of_this_process() -> Result<Halves, BenchError> {
        let usable = sched_getaffinity(None).map_err(|error| {
            BenchError::io("cannot read the cores of this process", &error.into())
        })?;
        let half = usable.count() / 2;
        if half == 0 {
            return Err(BenchError::new(
                "--pin needs two cores, and this process may use only one",
            ));
        }
        let mut halves = Halves { target: CpuSet::new(), load: CpuSet::new() };
        for core in (0..CpuSet::MAX_CPU).filter(|core| usable.is_set(*core)) {
            let of_target = halves.target.count() < half;
            if of_target { &mut halves.target } else { &mut halves.load }.set(core);
        }
        Ok(halves)
    }

    /// Returns the number of cores of the target.
    pub(crate) fn target_cores(&self) -> usize {
        self.target.count() as usize
    }

    /// Starts a target on its cores. The calling thread, and what it starts later, then has the
    /// cores of the load.
    pub(crate) fn start<T>(
        &self,
        start: impl FnOnce() -> Result<T, BenchError>,
    ) -> Result<T, BenchError> {
        pin(&self.target)?;
        let started = start();
        pin(&self.load)?;
        started
    }
}

fn pin(cores: &CpuSet) -> Result<(), BenchError> {
    sched_setaffinity(None, cores)
        .map_err(|error| BenchError::io("cannot pin a process to its cores", &error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_share_no_core_and_leave_out_none() {
        let Ok(halves) = Halves::of_this_process() else {
            return;
        };
        let usable = sched_getaffinity(None).unwrap();
        for core in 0..CpuSet::MAX_CPU {
            let of = [&halves.target, &halves.load].map(|half| u32::from(half.is_set(core)));
            assert_eq!(of[0] + of[1], u32::from(usable.is_set(core)), "core {core}");
        }
        assert!(halves.target.count() <= halves.load.count());
    }

    #[test]
    fn a_target_starts_on_its_cores_and_the_load_follows_on_the_others() {
        let Ok(halves) = Halves::of_this_process() else {
            return;
        };
        let started = halves.start(|| Ok(sched_getaffinity(None).unwrap()));
        assert_eq!(started.unwrap(), halves.target);
        assert_eq!(sched_getaffinity(None).unwrap(), halves.load);
    }
}
