//! 3×3 convolutions with a quarter of the multiplications: F(4×4, 3×3) of Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks" (2016), after Winograd.
//!
//! An image is cut into tiles of 4×4 cells. A tile of the output depends on the 6×6 cells around it; 36 products, one for
//! each place of a transformed tile, take the place of the 144 of a plain convolution. Over all tiles and channels, those
//! are 36 matrix products. The maps here are linear, and for the same [`Part`], [`Join`] is the adjoint of [`Split`]: gradients
//! go back through it.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, bail};

use crate::unfold::contiguous;

/// Places of a transformed tile along an axis.
const SIDE: usize = 6;
/// Matrix products that a convolution consists of.
pub(crate) const PLACES: usize = SIDE * SIDE;
/// Tiles that are transformed together, so that the compiler finds vectors.
const LANES: usize = 16;

/// What is cut into tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// What a convolution looks at: tiles of 6×6 cells that overlap by two, with zeros beyond the edges.
    Input,
    /// What it answers: tiles of 4×4 cells.
    Output,
    /// Its kernels: each a tile of 3×3 cells.
    Kernel,
}

/// Transformed tiles `[36, channels, batch · tiles]` of `[batch, channels, rows, columns]`. For [`Part::Output`] it is the
/// adjoint of [`Join`], for the others it is what a convolution needs.
pub(crate) struct Split(pub(crate) Part);

/// `[batch, channels, rows, columns]` from transformed tiles `[36, channels, batch · tiles]`. For [`Part::Output`] it is
/// what a convolution needs, for the others it is the adjoint of [`Split`].
pub(crate) struct Join {
    pub(crate) part: Part,
    /// `[batch, channels, rows, columns]`
    pub(crate) image: [usize; 4],
}

impl Part {
    /// Cells from one tile to the next, and cells that a tile reaches over on each side.
    const fn geometry(self) -> (usize, usize) {
        match self {
            Self::Input => (4, 1),
            Self::Output => (4, 0),
            Self::Kernel => (3, 0),
        }
    }

    /// Tiles of an image.
    pub(crate) const fn tiles(self, rows: usize, columns: usize) -> usize {
        let (step, _) = self.geometry();
        rows.div_ceil(step) * columns.div_ceil(step)
    }
}

impl CustomOp1 for Split {
    fn name(&self) -> &'static str {
        "split into tiles"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, channels, rows, columns) = layout.shape().dims4()?;
        let cells = contiguous(storage, layout, self.name())?;
        let canvas = Canvas::new(self.0, batch, channels, rows, columns);
        let tiles = match self.0 {
            Part::Input => canvas.split(cells, input),
            Part::Output => canvas.split(cells, output_adjoint),
            Part::Kernel => canvas.split(cells, kernel),
        };
        Ok((CpuStorage::F32(tiles), canvas.tiles_shape()))
    }
}

impl CustomOp1 for Join {
    fn name(&self) -> &'static str {
        "join tiles"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let [batch, channels, rows, columns] = self.image;
        let canvas = Canvas::new(self.part, batch, channels, rows, columns);
        if *layout.shape() != canvas.tiles_shape() {
            bail!("join tiles: expected shape {:?}, found {:?}", canvas.tiles_shape(), layout.shape());
        }
        let tiles = contiguous(storage, layout, self.name())?;
        let cells = match self.part {
            Part::Input => canvas.join(tiles, input_adjoint),
            Part::Output => canvas.join(tiles, output),
            Part::Kernel => canvas.join(tiles, kernel_adjoint),
        };
        Ok((CpuStorage::F32(cells), Shape::from((batch, channels, rows, columns))))
    }
}

/// The same cell of [`LANES`] tiles.
type Cell = [f32; LANES];

/// One channel of all images, with room for all cells of the tiles at its edges.
struct Canvas {
    batch: usize,
    channels: usize,
    rows: usize,
    columns: usize,
    /// How far an image is from the canvas's edge.
    halo: usize,
    /// Cells from a row of the canvas to the next.
    width: usize,
    /// Cells from an image on the canvas to the next.
    plane: usize,
    /// The first cell of every tile.
    origins: Vec<usize>,
}

impl Canvas {
    fn new(part: Part, batch: usize, channels: usize, rows: usize, columns: usize) -> Self {
        let (step, halo) = part.geometry();
        let (down, right) = (rows.div_ceil(step), columns.div_ceil(step));
        let (height, width) = (down * step + 2 * halo, right * step + 2 * halo);
        let plane = height * width;
        let origins = (0..batch).flat_map(|image| {
            (0..down).flat_map(move |row| (0..right).map(move |column| image * plane + step * (row * width + column)))
        });
        Self { batch, channels, rows, columns, halo, width, plane, origins: origins.collect() }
    }

    fn tiles_shape(&self) -> Shape {
        Shape::from((PLACES, self.channels, self.origins.len()))
    }

    /// Where rows of a channel's images lie on the canvas, and among all cells of the images.
    fn lines(&self, channel: usize) -> impl Iterator<Item = (usize, usize)> {
        (0..self.batch).flat_map(move |image| {
            (0..self.rows).map(move |row| {
                let on_canvas = image * self.plane + (row + self.halo) * self.width + self.halo;
                (on_canvas, ((image * self.channels + channel) * self.rows + row) * self.columns)
            })
        })
    }

    fn split<const N: usize>(&self, cells: &[f32], line: impl Fn([f32; N]) -> [f32; SIDE] + Copy) -> Vec<f32> {
        let count = self.origins.len();
        let mut tiles = vec![0.0; PLACES * self.channels * count];
        let mut canvas = vec![0.0; self.batch * self.plane];
        for channel in 0..self.channels {
            for (on_canvas, at) in self.lines(channel) {
                canvas[on_canvas..on_canvas + self.columns].copy_from_slice(&cells[at..at + self.columns]);
            }
            let mut tile = [[[0.0; LANES]; N]; N];
            for (block, origins) in self.origins.chunks(LANES).enumerate() {
                for (lane, origin) in origins.iter().enumerate() {
                    for (row, to) in tile.iter_mut().enumerate() {
                        let from = &canvas[origin + row * self.width..][..N];
                        for (to, from) in to.iter_mut().zip(from) {
                            to[lane] = *from;
                        }
                    }
                }
                let transformed = transform(&tile, line);
                for (place, values) in transformed.as_flattened().iter().enumerate() {
                    let start = (place * self.channels + channel) * count + block * LANES;
                    copy_lanes(&mut tiles[start..start + origins.len()], values);
                }
            }
        }
        tiles
    }

    fn join<const M: usize>(&self, tiles: &[f32], line: impl Fn([f32; SIDE]) -> [f32; M] + Copy) -> Vec<f32> {
        let count = self.origins.len();
        let mut cells = vec![0.0; self.batch * self.channels * self.rows * self.columns];
        let mut canvas = vec![0.0; self.batch * self.plane];
        for channel in 0..self.channels {
            canvas.fill(0.0);
            let mut transformed = [[[0.0; LANES]; SIDE]; SIDE];
            for (block, origins) in self.origins.chunks(LANES).enumerate() {
                for (place, values) in transformed.as_flattened_mut().iter_mut().enumerate() {
                    let start = (place * self.channels + channel) * count + block * LANES;
                    copy_lanes(values, &tiles[start..start + origins.len()]);
                }
                let tile = transform(&transformed, line);
                for (lane, origin) in origins.iter().enumerate() {
                    for (row, from) in tile.iter().enumerate() {
                        let to = &mut canvas[origin + row * self.width..][..M];
                        for (to, from) in to.iter_mut().zip(from) {
                            *to += from[lane];
                        }
                    }
                }
            }
            for (on_canvas, at) in self.lines(channel) {
                cells[at..at + self.columns].copy_from_slice(&canvas[on_canvas..on_canvas + self.columns]);
            }
        }
        cells
    }
}

/// Copies as many values as there are on both sides; a full block without a call.
#[inline(always)]
fn copy_lanes(to: &mut [f32], from: &[f32]) {
    if let (Ok(to), Ok(from)) = (<&mut Cell>::try_from(&mut *to), <&Cell>::try_from(from)) {
        *to = *from;
    } else {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }
}

/// Applies `line` along both axes. Rows become columns on the way; whoever splits and joins again has them back.
#[inline(always)]
fn transform<const N: usize, const M: usize>(
    tile: &[[Cell; N]; N],
    line: impl Fn([f32; N]) -> [f32; M] + Copy,
) -> [[Cell; M]; M] {
    let mut half = [[[0.0; LANES]; N]; M];
    for (row, cells) in tile.iter().enumerate() {
        for lane in 0..LANES {
            let values = line(std::array::from_fn(|column| cells[column][lane]));
            for (to, value) in half.iter_mut().zip(values) {
                to[row][lane] = value;
            }
        }
    }
    let mut whole = [[[0.0; LANES]; M]; M];
    for (cells, to) in half.iter().zip(&mut whole) {
        for lane in 0..LANES {
            let values = line(std::array::from_fn(|row| cells[row][lane]));
            for (to, value) in to.iter_mut().zip(values) {
                to[lane] = value;
            }
        }
    }
    whole
}

#[inline(always)]
fn input([a, b, c, d, e, f]: [f32; 6]) -> [f32; 6] {
    let (even, odd) = (e - 4.0 * c, d - 4.0 * b);
    let (second, first) = (e - c, 2.0 * (d - b));
    [4.0 * a - 5.0 * c + e, even + odd, even - odd, second + first, second - first, 4.0 * b - 5.0 * d + f]
}

#[inline(always)]
fn input_adjoint([a, b, c, d, e, f]: [f32; 6]) -> [f32; 6] {
    let (sum, difference) = (b + c, b - c);
    let (second, first) = (d + e, 2.0 * (d - e));
    [
        4.0 * a,
        4.0 * f - 4.0 * difference - first,
        -5.0 * a - 4.0 * sum - second,
        difference + first - 5.0 * f,
        a + sum + second,
        f,
    ]
}

#[inline(always)]
fn kernel([a, b, c]: [f32; 3]) -> [f32; 6] {
    let outer = (a + c) * (1.0 / 6.0);
    let (wide, inner) = (a * (1.0 / 24.0) + c * (1.0 / 6.0), b * (1.0 / 12.0));
    let middle = b * (1.0 / 6.0);
    [0.25 * a, -outer - middle, middle - outer, wide + inner, wide - inner, c]
}

#[inline(always)]
fn kernel_adjoint([a, b, c, d, e, f]: [f32; 6]) -> [f32; 3] {
    let (sum, difference) = ((b + c) * (1.0 / 6.0), (c - b) * (1.0 / 6.0));
    let (wide, inner) = (d + e, (d - e) * (1.0 / 12.0));
    [0.25 * a - sum + wide * (1.0 / 24.0), difference + inner, wide * (1.0 / 6.0) - sum + f]
}

#[inline(always)]
fn output([a, b, c, d, e, f]: [f32; 6]) -> [f32; 4] {
    let (sum, difference) = (b + c, b - c);
    let (wide, inner) = (d + e, d - e);
    [a + sum + wide, difference + 2.0 * inner, sum + 4.0 * wide, difference + 8.0 * inner + f]
}

#[inline(always)]
fn output_adjoint([a, b, c, d]: [f32; 4]) -> [f32; 6] {
    let (even, odd) = (a + c, b + d);
    let (wide, inner) = (a + 4.0 * c, 2.0 * b + 8.0 * d);
    [a, even + odd, even - odd, wide + inner, wide - inner, d]
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;

    use super::*;
    use crate::unfold::tests::ramp;

    fn product(left: &Tensor, right: &Tensor) -> f32 {
        (left * right).unwrap().sum_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn join_is_the_adjoint_of_split() {
        let cases = [
            (Part::Input, [2, 3, 9, 4]),
            (Part::Input, [1, 1, 1, 1]),
            (Part::Output, [3, 2, 5, 70]),
            (Part::Kernel, [40, 1, 3, 3]),
        ];
        for (part, image) in cases {
            let cells = ramp(&image);
            let split = cells.apply_op1_no_bwd(&Split(part)).unwrap();
            assert_eq!(split.dims(), [PLACES, image[1], image[0] * part.tiles(image[2], image[3])]);
            let tiles = ramp(split.dims());
            let joined = tiles.apply_op1_no_bwd(&Join { part, image }).unwrap();
            let (left, right) = (product(&split, &tiles), product(&cells, &joined));
            assert!((left - right).abs() < 1e-4 * left.abs().max(100.0), "{part:?} {image:?}: {left} {right}");
        }
    }

    #[test]
    fn one_tile_is_convolved() {
        let (image, kernel) = (ramp(&[1, 1, 4, 4]), ramp(&[1, 1, 3, 3]));
        let seen = image.apply_op1_no_bwd(&Split(Part::Input)).unwrap();
        let products = (seen * kernel.apply_op1_no_bwd(&Split(Part::Kernel)).unwrap()).unwrap();
        let answer = products.apply_op1_no_bwd(&Join { part: Part::Output, image: [1, 1, 4, 4] }).unwrap();
        let expected = image.conv2d(&kernel, 1, 1, 1, 1).unwrap();
        let distance = (answer - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        assert!(distance.to_scalar::<f32>().unwrap() < 1e-5);
    }

    #[test]
    fn another_shape_is_an_error() {
        assert!(ramp(&[4, 4]).apply_op1_no_bwd(&Split(Part::Input)).is_err());
        assert!(ramp(&[1, 1, 8, 4]).t().unwrap().apply_op1_no_bwd(&Split(Part::Input)).is_err());
        let join = Join { part: Part::Output, image: [1, 1, 4, 4] };
        assert!(ramp(&[PLACES, 1, 2]).apply_op1_no_bwd(&join).is_err());
    }
}
