"""The worker: takes heavy steps from the queue and carries them out on any host. It asks and never moves a clip."""
