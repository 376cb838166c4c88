# The same with crops of 512x1024 and whole images in the test, for backbones that take any size in their stride.
_base_ = "mmseg::_base_/datasets/cityscapes.py"
data_root = "{{$MST_DATA_ROOT:data}}/cityscapes/"
train_dataloader = dict(batch_size=1, dataset=dict(type="mst_transfer.CityscapesDataset", data_root=data_root))
val_dataloader = dict(dataset=dict(type="mst_transfer.CityscapesDataset", data_root=data_root))
test_dataloader = val_dataloader
