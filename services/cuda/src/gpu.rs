//! A GPU that batches of a few sizes go to.

#![allow(unsafe_code, reason = "calls of the CUDA driver, each with the reason why it is sound")]

use std::{
    collections::BTreeMap,
    ffi::c_void,
    sync::{Arc, Mutex, PoisonError},
};

use candle_core::{
    CudaDevice, CudaStorage, Device, Result, Storage, Tensor,
    backend::BackendDevice,
    bail,
    cuda_backend::{
        WrapErr,
        cudarc::driver::{CudaContext, CudaEvent, CudaSlice, CudaStream, PinnedHostSlice, result, sys},
    },
    op::BackpropOp,
};

/// Devices that nobody has now. candle keeps what [`Gpu::keep_shapes`] says by device and for ever: who comes next gets one that
/// was there before.
static UNUSED: Mutex<Vec<CudaDevice>> = Mutex::new(Vec::new());

/// The GPU of this index, as CUDA counts them, for tensors that stay on it.
///
/// - All that is done on it goes through one stream, in order, whichever threads ask for it.
/// - No events are made for tensors: they would order several streams.
/// - Memory that was given back stays in the GPU's pool. The driver returns it to the system whenever somebody waits, which is
///   once a batch, and asks for it again, which takes longer than a kernel.
///
/// # Errors
/// If there is no such GPU, or no driver.
pub fn open(index: usize) -> Result<Device> {
    let mut unused = UNUSED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = unused.iter().position(|device| device.cuda_stream().context().ordinal() == index) {
        return Ok(Device::Cuda(unused.swap_remove(known)));
    }
    drop(unused);
    let device = CudaDevice::new_with_stream(index)?;
    if device.cuda_stream().context().has_async_alloc() {
        keep_memory(index)?;
    }
    // SAFETY: events order what several streams do with a tensor, and this device has one. It is a stream of its own, not the one
    // that each thread has, so that what one thread uploads, another uses and a third frees is done in that order. candle
    // makes no other stream for it, and takes tensors to one only in `Tensor::to_device`, which clippy.toml forbids.
    unsafe { device.disable_event_tracking() };
    Ok(Device::Cuda(device))
}

/// Bytes of the memory of the GPU of this index that are in use, by whomever.
///
/// # Errors
/// If there is no such GPU, or it does not answer any more.
pub fn memory_in_use(index: usize) -> Result<usize> {
    let (free, total) = CudaContext::new(index).and_then(|context| context.mem_get_info()).w()?;
    Ok(total.saturating_sub(free))
}

/// A GPU that inputs of a few sizes go to, one after the other. They are written into page-locked memory, one buffer for each
/// size, from which the GPU copies them by itself. From other memory the driver copies twice, and waits for the device before.
#[derive(Debug)]
pub struct Gpu {
    device: CudaDevice,
    /// By their size.
    buffers: BTreeMap<usize, Mutex<Buffer>>,
}

impl Gpu {
    /// The GPU of `device`, to which inputs of these `sizes` go, in bytes.
    ///
    /// # Errors
    /// If `device` is none, or memory runs out.
    pub fn new(device: &Device, sizes: impl IntoIterator<Item = usize>) -> Result<Self> {
        let device = device.as_cuda_device()?.clone();
        let context = device.cuda_stream().context().clone();
        let buffers = sizes.into_iter().map(|size| Ok((size, Mutex::new(Buffer::new(&context, size)?))));
        Ok(Self { buffers: buffers.collect::<Result<_>>()?, device })
    }

    /// Whether so many bytes are a size of [`Gpu::new`].
    #[must_use]
    pub fn takes(&self, size: usize) -> bool {
        self.buffers.contains_key(&size)
    }

    /// Lets `fill` write an input of this size, and copies it to the GPU: the tensor `[size]`.
    ///
    /// # Errors
    /// If that is no size of [`Gpu::new`], or the device fails.
    pub fn upload(&self, size: usize, fill: impl FnOnce(&mut [u8])) -> Result<Tensor> {
        let Some(buffer) = self.buffers.get(&size) else { bail!("no inputs of {size} bytes go to this device") };
        // Whatever a panic left there is written over.
        let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let cells = buffer.copy(&self.device.cuda_stream(), fill)?;
        let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(cells, self.device.clone()));
        Ok(Tensor::from_storage(storage, size, BackpropOp::none(), false))
    }

    /// Does `work`. What its kernels are told of the shapes of their inputs is uploaded once and kept, instead of with every
    /// launch, which would wait for the device each time. What is kept grows with the shapes that occur: they must be few.
    pub fn keep_shapes<T>(&self, work: impl FnOnce() -> T) -> T {
        let _kept = self.device.enable_cuda_graph_htod_cache();
        work()
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        let mut unused = UNUSED.lock().unwrap_or_else(PoisonError::into_inner);
        if !unused.iter().any(|device| device.same_device(&self.device)) {
            unused.push(self.device.clone());
        }
    }
}

/// Page-locked memory, and whether the GPU still copies from it. cudarc's own event for such memory is made and waited for, but
/// never recorded without those of tensors.
#[derive(Debug)]
struct Buffer {
    memory: PinnedHostSlice<u8>,
    copied: CudaEvent,
}

impl Buffer {
    /// So many bytes, all zero.
    fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self> {
        let copied = context.new_event(None).w()?;
        // SAFETY: the memory is not initialised, and is written to before anybody can read it, next. It is write-combined: slow
        // to read, which nobody does.
        let mut memory = unsafe { context.alloc_pinned::<u8>(bytes) }.w()?;
        let start = memory.as_mut_ptr().w()?;
        // SAFETY: `start` is valid for writes of `bytes` bytes, which were just allocated, and borrowed mutably.
        unsafe { start.write_bytes(0, bytes) };
        Ok(Self { memory, copied })
    }

    /// Lets `fill` write to the memory, once the GPU has read what was there before, and sends it on its way.
    fn copy(&mut self, stream: &Arc<CudaStream>, fill: impl FnOnce(&mut [u8])) -> Result<CudaSlice<u8>> {
        self.copied.synchronize().w()?;
        fill(self.memory.as_mut_slice().w()?);
        let cells = stream.clone_htod(&self.memory);
        // Also if that failed: nobody can know then whether something is on its way.
        let recorded = self.copied.record(stream);
        if recorded.is_err() {
            stream.synchronize().w()?;
        }
        recorded.and(cells).w()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // A GPU that does not answer any more does not copy any more either.
        let _ = self.copied.synchronize();
    }
}

/// Lets the memory pool of a device keep all that it has.
fn keep_memory(ordinal: usize) -> Result<()> {
    let device = result::device::get(i32::try_from(ordinal).map_err(candle_core::Error::wrap)?).w()?;
    // SAFETY: `device` is one that the driver has just named.
    let pool = unsafe { result::device::get_default_mem_pool(device) }.w()?;
    let mut threshold = u64::MAX;
    let value: *mut c_void = (&raw mut threshold).cast();
    // SAFETY: `pool` is the default one of the device and lives as long as that; the driver reads a 64-bit number for this
    // attribute from `value`, which is one, while the call lasts.
    unsafe { result::mem_pool::set_attribute(pool, sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, value) }
        .w()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    /// The first GPU, or nothing where there is none. The stand-in for one is there.
    fn first() -> Option<Device> {
        let opened = open(0);
        assert!(opened.is_ok() || std::env::var_os("CUDA_STAND_IN_TRACE").is_none(), "{opened:?}");
        opened.inspect_err(|error| eprintln!("skipped: {error}")).ok()
    }

    /// One test, as devices that are given back are of the process.
    #[test]
    fn inputs_are_not_written_over_on_their_way_and_devices_are_used_again() {
        let Some(device) = first() else { return };
        let gpu = Gpu::new(&device, [4]).unwrap();
        let inputs = [1, 2, 3].map(|value| gpu.upload(4, |cells| cells.fill(value)).unwrap());
        for (input, value) in inputs.iter().zip(1..) {
            assert_eq!(input.to_vec1::<u8>().unwrap(), [value; 4]);
        }
        assert!(gpu.upload(5, |_| {}).is_err());
        assert!(memory_in_use(0).unwrap() > 0);

        let other = first().unwrap();
        assert!(!other.same_device(&device));
        // What is still on its way when the buffer goes arrives.
        let last = gpu.upload(4, |cells| cells.fill(4)).unwrap();
        drop(gpu);
        assert_eq!(last.to_vec1::<u8>().unwrap(), [4; 4]);
        assert!(first().unwrap().same_device(&device));
    }
}
