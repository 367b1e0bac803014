"""Hardware monitors of the kernel: boards, Grace, Jetson, AMD and Intel GPUs."""
