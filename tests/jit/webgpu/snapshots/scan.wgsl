@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) localIndex: u32) {
  let index = ((workgroup.x * 64u) + localIndex);
  if ((index >= 10u)) {
    return;
  }
  y[index] = x[index];
}

@group(0) @binding(0) var<storage, read_write> control: array<u32>;
@compute @workgroup_size(1)
fn main() {
  control[0u] = 0u;
  control[1u] = 0u;
  control[2u] = 0u;
}

@group(0) @binding(0) var<storage, read> control: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) localIndex: u32) {
  let index = ((workgroup.x * 64u) + localIndex);
  if ((index >= 6u)) {
    return;
  }
  if ((index >= (control[0u] * 2u))) {
    y[index] = 0u;
  }
}

@group(0) @binding(0) var<storage, read> control: array<u32>;
@group(0) @binding(1) var<storage, read_write> taken: array<u32>;
@compute @workgroup_size(1)
fn main() {
  taken[0u] = control[0u];
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
var<workgroup> parts0: array<f32, 64>;
var<workgroup> parts01: array<f32, 64>;
var<private> infinityBits: u32 = 0x7f800000u;
fn exactExp(p0: f32) -> f32 {
  let x = clamp(p0, -104.0f, 89.0f);
  let n = round((x * 1.442695f));
  let r = ((x - (n * 0.6933594f)) - (n * -0.00021219444f));
  let power = i32(n);
  let half = (power >> 1u);
  let value = ((((((((((((((((0.0001984127f * r) + 0.0013888889f) * r) + 0.008333334f) * r) + 0.041666668f) * r) + 0.16666667f) * r) + 0.5f) * r) + 1.0f) * r) + 1.0f) * bitcast<f32>(((half + 127i) << 23u))) * bitcast<f32>((((power - half) + 127i) << 23u)));
  return select(select(select(value, 0.0f, (p0 < -104.0f)), bitcast<f32>(infinityBits), (p0 > 89.0f)), p0, ((bitcast<u32>(p0) & 2147483647u) > 2139095040u));
}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) localIndex: u32) {
  let group = workgroup.x;
  let base = (i32(group) * 5i);
  var largest = (-bitcast<f32>(infinityBits));
  for (var j = i32(localIndex); j < 5i; j += 64i) {
    largest = max(largest, x[(base + j)]);
  }
  workgroupBarrier();
  parts0[localIndex] = largest;
  workgroupBarrier();
  if ((localIndex < 32u)) {
    parts0[localIndex] = max(parts0[localIndex], parts0[(localIndex + 32u)]);
  }
  workgroupBarrier();
  if ((localIndex < 16u)) {
    parts0[localIndex] = max(parts0[localIndex], parts0[(localIndex + 16u)]);
  }
  workgroupBarrier();
  if ((localIndex < 8u)) {
    parts0[localIndex] = max(parts0[localIndex], parts0[(localIndex + 8u)]);
  }
  workgroupBarrier();
  if ((localIndex < 4u)) {
    parts0[localIndex] = max(parts0[localIndex], parts0[(localIndex + 4u)]);
  }
  workgroupBarrier();
  if ((localIndex < 2u)) {
    parts0[localIndex] = max(parts0[localIndex], parts0[(localIndex + 2u)]);
  }
  workgroupBarrier();
  if ((localIndex < 1u)) {
    parts0[localIndex] = max(parts0[localIndex], parts0[(localIndex + 1u)]);
  }
  workgroupBarrier();
  let total0 = parts0[0u];
  var sum = 0.0f;
  for (var j1 = i32(localIndex); j1 < 5i; j1 += 64i) {
    sum = (sum + exactExp((x[(base + j1)] - total0)));
  }
  workgroupBarrier();
  parts01[localIndex] = sum;
  workgroupBarrier();
  if ((localIndex < 32u)) {
    parts01[localIndex] = (parts01[localIndex] + parts01[(localIndex + 32u)]);
  }
  workgroupBarrier();
  if ((localIndex < 16u)) {
    parts01[localIndex] = (parts01[localIndex] + parts01[(localIndex + 16u)]);
  }
  workgroupBarrier();
  if ((localIndex < 8u)) {
    parts01[localIndex] = (parts01[localIndex] + parts01[(localIndex + 8u)]);
  }
  workgroupBarrier();
  if ((localIndex < 4u)) {
    parts01[localIndex] = (parts01[localIndex] + parts01[(localIndex + 4u)]);
  }
  workgroupBarrier();
  if ((localIndex < 2u)) {
    parts01[localIndex] = (parts01[localIndex] + parts01[(localIndex + 2u)]);
  }
  workgroupBarrier();
  if ((localIndex < 1u)) {
    parts01[localIndex] = (parts01[localIndex] + parts01[(localIndex + 1u)]);
  }
  workgroupBarrier();
  let total01 = parts01[0u];
  let total = total01;
  for (var j2 = i32(localIndex); j2 < 5i; j2 += 64i) {
    y[(base + j2)] = (exactExp((x[(base + j2)] - total0)) / total);
  }
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<i32>;
var<private> infinityBits: u32 = 0x7f800000u;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) localIndex: u32) {
  let index = ((workgroup.x * 64u) + localIndex);
  if ((index >= 2u)) {
    return;
  }
  let place = (i32(index) % 1i);
  let rest = i32(index);
  let base = ((rest * 5i) + place);
  let head = x[base];
  var held = (-bitcast<f32>(infinityBits));
  var place1 = 2147483647i;
  for (var j = 0i; j < 5i; j += 1i) {
    let value = x[(base + j)];
    if (((value > held) | ((value == held) & (j < place1)))) {
      held = value;
      place1 = j;
    }
  }
  y[index] = select(select(place1, 0i, (place1 == 2147483647i)), 0i, ((bitcast<u32>(head) & 2147483647u) > 2139095040u));
}

@group(0) @binding(0) var<storage, read_write> control: array<u32>;
@group(0) @binding(1) var<storage, read_write> memory0: array<u32>;
@group(0) @binding(2) var<storage, read_write> memory1: array<u32>;
@group(0) @binding(3) var<storage, read_write> memory3: array<u32>;
var<workgroup> roundShared: array<u32, 1>;
var<workgroup> hasEndedShared: array<u32, 1>;
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) localIndex: u32) {
  if ((localIndex == 0u)) {
    roundShared[0u] = control[0u];
  }
  let round_ = workgroupUniformLoad(&roundShared[0]);
  if ((localIndex == 0u)) {
    hasEndedShared[0u] = control[1u];
  }
  let hasEnded = workgroupUniformLoad(&hasEndedShared[0]);
  if ((hasEnded != 0u)) {
    return;
  }
  for (var i = localIndex; i < 2u; i += 64u) {
    memory1[((round_ * 2u) + i)] = memory0[(i + 64u)];
  }
  storageBarrier();
  workgroupBarrier();
  for (var i1 = localIndex; i1 < 10u; i1 += 64u) {
    memory3[i1] = memory0[i1];
  }
  if ((localIndex == 0u)) {
    control[0u] = (round_ + 1u);
  }
}
