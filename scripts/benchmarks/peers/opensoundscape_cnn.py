"""OpenSoundscape's CNN with its default preprocessing and augmentation; see `clock`. Options: ``fast``, with a gradient
scaler and channels-last; ``float32``, without the bfloat16 that it otherwise always uses on a CPU."""

import pandas
import torch
from clock import Task
from opensoundscape import CNN
from opensoundscape.ml.cnn_architectures import resnet18

if __name__ == "__main__":
    task = Task("opensoundscape")
    files, targets = task.files()
    classes = sorted(set(targets))
    labels = [[int(target == name) for name in classes] for target in targets]
    frame = pandas.DataFrame(labels, index=[str(file) for file in files], columns=[str(name) for name in classes])
    frame.index.name = "file"
    shape = {"height": task.bands, "width": task.frames, "channels": 1}
    # without downloaded weights, which do not change the time of a step
    network = resnet18(len(classes), weights=None, num_channels=1)
    model = CNN(network, frame.columns, 5.0, 44100, **shape, single_target=True)
    model.device = task.device
    if task.options == ["fast"]:
        model.use_amp = True
        model.network = model.network.to(memory_format=torch.channels_last)
    elif task.options == ["float32"]:
        model.network.forward = torch.autocast(task.device, enabled=False)(model.network.forward)
    task.watch()
    steps = task.epochs * -(-task.clips // task.batch)
    model.train(frame, steps=steps, batch_size=task.batch, save_path=str(task.scratch), save_interval=-1)
