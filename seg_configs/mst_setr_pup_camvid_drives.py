# SETR-PUP on CamVid, tested on a drive that training has not seen; the official split tests on one of which training
# has the neighbouring frames.
#   MST_DATA_ROOT=FOLDER tools/dist_train.sh seg_configs/mst_setr_pup_camvid_drives.py 1
_base_ = "mst_setr_pup_camvid.py"
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        datasets=[
            dict(
                type={{_base_.train_dataloader.dataset.type}},
                data_root={{_base_.train_dataloader.dataset.data_root}},
                data_prefix=dict(img_path=f"leftImg8bit/train/{drive}", seg_map_path=f"gtFine/train/{drive}"),
                img_suffix="_leftImg8bit.jpg",
                metainfo={{_base_.train_dataloader.dataset.metainfo}},
                pipeline={{_base_.train_pipeline}},
            )
            for drive in ("0001TP", "0016E5")
        ],
    )
)
_held_out = dict(img_path="leftImg8bit/train/0006R0", seg_map_path="gtFine/train/0006R0")
val_dataloader = dict(dataset=dict(data_prefix=_held_out))
test_dataloader = val_dataloader
