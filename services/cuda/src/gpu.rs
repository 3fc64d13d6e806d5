//! A GPU that batches of a few sizes go to.

#![allow(unsafe_code, reason = "calls of the CUDA driver, each with the reason why it is sound")]

use std::{
    collections::BTreeMap,
    ffi::c_void,
    sync::{Arc, Mutex, PoisonError},
};

use candle_core::{
    CudaDevice, CudaStorage, Device, Result, Storage, Tensor, bail,
    cuda_backend::{
        WrapErr,
        cudarc::driver::{CudaContext, PinnedHostSlice, result, sys},
    },
    op::BackpropOp,
};

/// A GPU that inputs of a few sizes go to, one after the other.
///
/// - Inputs are written into page-locked memory, one buffer for each size, from which the GPU copies them by itself. From other
///   memory the driver copies twice, and waits for the device before.
/// - Memory that was given back stays in the device's pool. The driver returns it to the system whenever somebody waits, which
///   is once a batch, and asks for it again, which takes longer than a kernel.
/// - No events are made for tensors. They would order several streams, and everything here runs on one.
#[derive(Debug)]
pub struct Gpu {
    device: CudaDevice,
    /// By their size.
    buffers: BTreeMap<usize, Mutex<PinnedHostSlice<u8>>>,
}

impl Gpu {
    /// The GPU of `device`, to which inputs of these `sizes` go, in bytes.
    ///
    /// # Errors
    /// If `device` is none, or memory runs out.
    pub fn new(device: &Device, sizes: impl IntoIterator<Item = usize>) -> Result<Self> {
        let device = device.as_cuda_device()?.clone();
        let context = device.cuda_stream().context().clone();
        if context.has_async_alloc() {
            keep_memory(context.ordinal())?;
        }
        // SAFETY: events order what several streams do with a tensor. candle gave this device the stream of the thread that
        // uses it and makes no other; the context is in single-stream mode, in which events are made but never waited for. What
        // one thread uploads and another uses, weights, is complete by then: the first has read a result in between.
        unsafe { device.disable_event_tracking() };
        let buffers = sizes.into_iter().map(|size| Ok((size, Mutex::new(page_locked(&context, size)?))));
        Ok(Self { device, buffers: buffers.collect::<Result<_>>()? })
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
        // Waits until the GPU has read what was there before, which it has unless its last result was not read.
        fill(buffer.as_mut_slice().w()?);
        let cells = self.device.cuda_stream().clone_htod(&*buffer).w()?;
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

/// Page-locked memory of so many bytes, all zero.
fn page_locked(context: &Arc<CudaContext>, bytes: usize) -> Result<PinnedHostSlice<u8>> {
    // SAFETY: the memory is not initialised, and is written to before anybody can read it, next. It is write-combined: slow to
    // read, which nobody does.
    let mut buffer = unsafe { context.alloc_pinned::<u8>(bytes) }.w()?;
    let start = buffer.as_mut_ptr().w()?;
    // SAFETY: `start` is valid for writes of `bytes` bytes, which were just allocated, and borrowed mutably.
    unsafe { start.write_bytes(0, bytes) };
    Ok(buffer)
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
