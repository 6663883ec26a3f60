"""Arguments of Lightning's `Trainer` that a configuration may not set.

The schema lists all others. A test compares both lists with the installed version of Lightning, which is not imported
here: a misspelled key is answered before it could be.
"""

REFUSED_ARGUMENTS = {
    "accumulate_grad_batches": (
        "data.batch_size is the number of clips per optimizer step; trainer.micro_batches divides it"
    ),
    "barebones": "it disables checkpoints and metrics, so a run could not be resumed",
    "callbacks": "set an entry of callbacks, see conf/callbacks",
    "default_root_dir": "each fold has its own folder; set paths.outputs",
    "enable_checkpointing": (
        "a run is resumed from its checkpoints; set checkpoints.keep=none to delete them at the end of a fold"
    ),
    "fast_dev_run": "it scores a part of the test clips; set experiment=debug, whose result is never stored",
    "limit_predict_batches": "a training predicts nothing; set limit_train_batches or limit_val_batches",
    "limit_test_batches": "every test clip is scored once; set experiment=debug to test the code",
    "logger": "set an entry of logger, see conf/logger",
    "max_time": (
        "the end would depend on the machine's speed, but runs of one id have one result; set trainer.max_steps"
    ),
    "model_registry": "it uploads checkpoints; set logger.wandb.artifact=true to upload weights",
    "num_nodes": "a fold is trained on one machine, whose process of rank 0 writes its files",
    "overfit_batches": "it replaces the validation clips by training clips; set trainer.limit_train_batches",
    "plugins": (
        "they write and read the checkpoints that a run is resumed from; set trainer.precision for the precision"
    ),
    "reload_dataloaders_every_n_epochs": "augment.copies sets it; otherwise every epoch has the same clips",
    "strategy": (
        "trainer.devices above 1 selects DDP; with other strategies no process has all the weights that are saved"
    ),
    "sync_batchnorm": "it is on with several GPUs, so that a result does not depend on their number",
    "use_distributed_sampler": "the loader itself gives each device its slice of a batch",
}
