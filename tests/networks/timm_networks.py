"""A dozen of timm's families, in the tiny sizes that timm has for its own tests, as a factory."""

import timm

FAMILIES = (
    "test_byobnet", "test_convnext", "test_convnext2", "test_efficientnet",
    "test_efficientnet_gn", "test_efficientnet_ln", "test_mambaout", "test_nfnet", "test_resnet",
    "test_vit", "test_vit2", "test_vit4",
)  # fmt: skip


def _factory(name):
    def make(num_classes, in_channels, image_size):
        size = {"img_size": image_size} if "vit" in name else {}
        return timm.create_model(
            name, pretrained=False, num_classes=num_classes, in_chans=in_channels, **size
        )

    return make


for _name in FAMILIES:
    globals()[_name] = _factory(_name)
